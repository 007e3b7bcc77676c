-- token_group_size: how many positions each token group has, or why it has none.
-- One row per run × preset × token_group.
--   run_id       the run; published, or missing because its corpora lack the positions asked for
--   preset       definition of rare and common (see position_group); for a missing run, the one
--                asked for
--   token_group  rare or common
--   positions    number of positions in the group
--   tokens       number of different targets
--   reason       why there is no position; NULL if there is one

create or replace view token_group_size as
with run as (
    select run_key, run_id, source_key, contexts, status, status_reason
    from store.run
    where status = 'published' or (status = 'missing' and contexts <> 'sample')
),

token_group as (
    select
        preset.preset,
        side.token_group,
        case
            when preset.percentile is null
                then format(
                    'its positions are a sample; ingest --contexts {} searches for pairs',
                    preset.preset
                )
            else concat(
                'no target ',
                case
                    when side.token_group = 'rare' then if(preset.words, 'is a word below', 'below')
                    else if(preset.strict, 'above', 'at or above')
                end,
                if(preset.occurrences, ' occurrence', ' type'), ' percentile ',
                format('{:g}', preset.percentile),
                if(preset.elbow, '', ', the elbow left out')
            )
        end as why_empty
    from store.preset as preset
    cross join (values ('rare'), ('common')) as side (token_group)
),

size as (
    select
        grouped.run_key,
        grouped.preset,
        grouped.token_group,
        count(*) as positions,
        count(distinct position.target_token_id) as tokens
    from store.position_group as grouped
    join store.dim_position as position using (run_key, position_id)
    group by all
),

final as (
    select
        run.run_id,
        token_group.preset,
        token_group.token_group,
        coalesce(size.positions, 0)::uinteger as positions,
        coalesce(size.tokens, 0)::uinteger as tokens,
        case
            when size.positions > 0 then null
            when run.status = 'missing' then run.status_reason
            else token_group.why_empty
        end as reason
    from run
    join token_group on run.status = 'published' or token_group.preset = run.contexts
    left join size
        on
            run.run_key = size.run_key
            and token_group.preset = size.preset
            and token_group.token_group = size.token_group
)

select * from final;
