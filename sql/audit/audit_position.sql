-- audit_position: what is wrong with a run's positions and documents, counted.
-- One row per run that has positions.
--   run_id               the run
--   positions            rows
--   distinct_positions   different position_id
--   position_hash        sum of the hashes of position_id (see audit_effect)
--   greatest_position    largest position_id
--   misplaced            position_id is not window_id × window_length + window_offset
--   null_values          NULL in a column that must have none
--   unknown_tokens       input or target token that dim_token does not have
--   uncounted_tokens     target without a row in token_frequency
--   unknown_documents    document that dim_document does not have
--   not_finite           loss or entropy that is not finite
--   negative             loss or entropy below −0.001
--   documents            rows of dim_document
--   distinct_documents   different document_id
--   outside_documents    first_position that is not a position of the run

create or replace view audit_position as
with position as (
    select * from dim_position
),

document as (
    select * from dim_document
),

run as (
    select * from dim_run
),

checked as (
    select
        position.*,
        run.window_length,
        input.token_id is null or target.token_id is null as is_unknown_token,
        frequency.token_id is null as is_uncounted,
        position.document_id is not null and document.document_id is null as is_unknown_document
    from position
    join run using (run_id)
    left join dim_token as input
        on run.tokenizer_id = input.tokenizer_id and position.input_token_id = input.token_id
    left join dim_token as target
        on run.tokenizer_id = target.tokenizer_id and position.target_token_id = target.token_id
    left join token_frequency as frequency
        on
            run.tokenizer_id = frequency.tokenizer_id
            and run.frequency_source_id = frequency.frequency_source_id
            and position.target_token_id = frequency.token_id
    left join (select distinct run_id, document_id from document) as document
        on position.run_id = document.run_id and position.document_id = document.document_id
),

position_sum as (
    select
        run_id,
        count(*) as positions,
        count(distinct position_id) as distinct_positions,
        sum(hash(position_id)) as position_hash,
        max(position_id) as greatest_position,
        count_if(position_id::bigint <> window_id::bigint * window_length + window_offset)
            as misplaced,
        count_if(
            position_id is null or window_id is null or window_offset is null
            or input_token_id is null or target_token_id is null or loss is null or entropy is null
        ) as null_values,
        count_if(is_unknown_token) as unknown_tokens,
        count_if(is_uncounted) as uncounted_tokens,
        count_if(is_unknown_document) as unknown_documents,
        count_if(not isfinite(loss) or not isfinite(entropy)) as not_finite,
        count_if(loss < -0.001 or entropy < -0.001) as negative
    from checked
    group by run_id
),

document_sum as (
    select
        run_id,
        count(*) as documents,
        count(distinct document_id) as distinct_documents,
        count_if(first_position >= run.positions) as outside_documents
    from document
    join run using (run_id)
    group by run_id
),

final as (
    select
        position_sum.*,
        coalesce(document_sum.documents, 0) as documents,
        coalesce(document_sum.distinct_documents, 0) as distinct_documents,
        coalesce(document_sum.outside_documents, 0) as outside_documents
    from position_sum
    left join document_sum using (run_id)
)

select * from final;
