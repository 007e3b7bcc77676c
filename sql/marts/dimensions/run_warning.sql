-- run_warning: what to know about a run's token groups before reading its results.
-- One row per run × kind × preset, of published runs that exceed a limit.
--   run_id     the run
--   kind       few_tokens: its frequency source has few tokens; large_elbow: the preset's elbow
--              leaves out many positions
--   preset     the preset concerned; NULL: every preset
--   message    the warning in words, with its numbers
--   observed   few_tokens: tokens counted in the source; large_elbow: share of positions left out,
--              0 to 1
--   threshold  limit of observed: the fewest tokens, or the largest share, without a warning
--
-- `store.warning_rule` shows the limits of common/run_warnings.py. Positions are those in
-- position_frequency. All is computed from what is stored; dim_run has the ingest's own warnings.

create or replace view run_warning as
with run as (
    select run.run_id, run.source_key, source.description
    from store.run as run
    join store.frequency_source as source using (source_key)
    where run.status = 'published'
),

source as (
    select
        source_key,
        sum(count) as tokens,
        count_if(count > 0) as types,
        count_if(count = 1) as once,
        min(rank) filter (where is_elbow) as first_rank,
        max(rank) filter (where is_elbow) as last_rank
    from store.token_frequency
    group by source_key
),

grouped as (
    select
        graded.run_id,
        preset.preset,
        preset.percentile,
        preset.elbow,
        graded.is_elbow,
        graded.count,
        token_group_of(
            if(preset.occurrences, graded.occurrence_percentile, graded.percentile),
            graded.is_word, graded.is_elbow,
            preset.percentile, preset.words, preset.elbow, preset.strict
        ) as token_group,
        token_group_of(
            if(preset.occurrences, graded.occurrence_percentile, graded.percentile),
            graded.is_word, false,
            preset.percentile, preset.words, preset.elbow, preset.strict
        ) as with_elbow
    from store.position_frequency as graded
    cross join store.preset as preset
    where preset.percentile is not null
),

size as (
    select
        run_id,
        preset,
        percentile,
        elbow,
        count(*) as positions,
        count_if(with_elbow is not null and token_group is null) as left_out,
        count_if(token_group = 'rare') as rare,
        count_if(token_group = 'common') as common,
        count_if(token_group = 'rare' and count <= 2) as rare_by_two
    from grouped
    group by all
),

-- In how much of each rare group one or two occurrences decide that it is rare.
evidence as (
    select
        run_id,
        string_agg(format('{} {:.0f} %', preset, 100 * rare_by_two / rare), ', ' order by preset)
            as shares
    from size
    where rare > 0
    group by run_id
),

few_tokens as (
    select
        run.run_id,
        rule.kind,
        null::varchar as preset,
        concat(
            format(
                'Token frequencies rest on {:,} tokens ({}), fewer than {:,}, so chance has a part '
                'in which tokens are rare. Types that occur once and tie as the rarest: {:.0f} %. ',
                source.tokens::bigint, run.description, rule.threshold::bigint,
                100 * source.once / source.types
            ),
            'Share of the rare positions whose target was counted once or twice: '
            || evidence.shares || '. ',
            'A larger corpus or a count file (--frequencies FILE.npy) is better.'
        ) as message,
        source.tokens::double as observed,
        rule.threshold
    from run
    join source using (source_key)
    join store.warning_rule as rule on rule.kind = 'few_tokens'
    left join evidence using (run_id)
    where source.types > 0 and source.tokens < rule.threshold
),

large_elbow as (
    select
        run.run_id,
        rule.kind,
        size.preset,
        concat(
            format('The elbow of the frequency curve falls on rank {:,}, ', elbow.rank),
            case
                when source.first_rank = 1 then 'among the most frequent tokens'
                when elbow.percentile < size.percentile then 'among the rarest types'
                else format('at type percentile {:.0f}', elbow.percentile)
            end,
            format(
                '. Preset {} leaves out the types at the elbow, {}, and with them '
                '{:,} of {:,} positions ({:.0f} %). It compares only the others: '
                '{:,} rare and {:,} common positions.',
                size.preset,
                if(
                    source.first_rank = source.last_rank,
                    format('rank {:,}', source.first_rank),
                    format('ranks {:,} to {:,}', source.first_rank, source.last_rank)
                ),
                size.left_out, size.positions, 100 * size.left_out / size.positions,
                size.rare, size.common
            )
        ) as message,
        size.left_out / size.positions as observed,
        rule.threshold
    from run
    join source using (source_key)
    join store.elbow as elbow using (source_key)
    join size using (run_id)
    join store.warning_rule as rule on rule.kind = 'large_elbow'
    where not size.elbow and size.left_out / size.positions > rule.threshold
),

final as (
    select run_id, kind, preset, message, observed, threshold from few_tokens
    union all by name
    select run_id, kind, preset, message, observed, threshold from large_elbow
)

select * from final;
