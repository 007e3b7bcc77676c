-- audit_context: what must hold for positions of a run that were searched for, not sampled.
-- One row per run of matched contexts × expectation.
--   run_id        the run
--   relation      position_context
--   expectation   what must hold
--   observed      how many positions, contexts or pairs violate it
--   least         observed must be at least this
--   most          observed must be at most this
--   is_integrity  no reason can let the run through (see audit_verdict)

create or replace view audit_context as
with run as (
    select
        dim_run.run_id,
        dim_run.tokenizer_id,
        dim_run.frequency_source_id,
        dim_run.positions,
        preset.rare_below,
        preset.common_above
    from dim_run
    join preset on dim_run.contexts = preset.preset
    where dim_run.status = 'published'
),

occurrence as (
    select
        run_id, tokenizer_id, frequency_source_id, count,
        sum(count) over (partition by run_id) as occurrences, token_id
    from token_frequency
    join run using (tokenizer_id, frequency_source_id)
),

matched as (
    select
        context.run_id,
        context.position_id,
        context.pair_id,
        context.context_id,
        context.token_group,
        position.target_token_id as token_id,
        occurrence.count / occurrence.occurrences as frequency,
        run.rare_below,
        run.common_above,
        {
            domain: document.domain,
            part_of_speech: context.part_of_speech,
            sentence_place: context.sentence_place,
            is_whole_word: context.is_whole_word
        } as usage
    from position_context as context
    join run using (run_id)
    left join dim_position as position using (run_id, position_id)
    left join dim_document as document
        on context.run_id = document.run_id and position.document_id = document.document_id
    left join occurrence
        on context.run_id = occurrence.run_id and position.target_token_id = occurrence.token_id
),

position_sum as (
    select
        run_id,
        count(*) as positions,
        count(distinct position_id) as distinct_positions,
        count_if(
            not coalesce(
                case token_group
                    when 'rare' then frequency > 0 and frequency < rare_below
                    when 'common' then frequency > common_above
                end, false
            )
        ) as wrong_frequencies
    from matched
    group by run_id
),

context as (
    select
        run_id,
        pair_id,
        context_id,
        count(*) <> 2 or count(distinct token_group) <> 2 as is_no_couple,
        count(distinct usage) <> 1 as is_unlike
    from matched
    group by all
),

context_sum as (
    select run_id, count_if(is_no_couple) as no_couples, count_if(is_unlike) as unlike
    from context
    group by run_id
),

token as (
    select run_id, token_id, count(distinct pair_id) as pairs from matched group by all
),

pair as (
    select run_id, pair_id, count(distinct token_id) as tokens from matched group by all
),

shared as (
    select run_id, count(*) as shared_tokens from token where pairs > 1 group by run_id
),

mixed as (
    select run_id, count(*) as mixed_pairs from pair where tokens <> 2 group by run_id
),

judged as (
    select
        run.run_id,
        unnest([
            {
                expectation: 'has every position once',
                failures: abs(position_sum.positions - run.positions)
                + position_sum.positions - position_sum.distinct_positions, is_integrity: true
            },
            {
                expectation: 'has a rare and a common position in each context',
                failures: context_sum.no_couples, is_integrity: true
            },
            {
                expectation: 'targets are as rare and as common as their group says',
                failures: position_sum.wrong_frequencies, is_integrity: true
            },
            {
                expectation: 'the two of a context are used alike',
                failures: context_sum.unlike, is_integrity: false
            },
            {
                expectation: 'a pair is of two tokens that are in no other',
                failures: coalesce(shared.shared_tokens, 0) + coalesce(mixed.mixed_pairs, 0),
                is_integrity: false
            }
        ], recursive := true)
    from run
    left join position_sum using (run_id)
    left join context_sum using (run_id)
    left join shared using (run_id)
    left join mixed using (run_id)
),

final as (
    select
        run_id,
        'position_context' as relation,
        expectation,
        coalesce(failures, 1)::double as observed,
        0::double as least,
        0::double as most,
        is_integrity
    from judged
)

select * from final;
