-- audit_frequency: what is wrong with the grading of a run's frequency source, counted.
-- One row per published run.
--   run_id         the run
--   off_one        |Σ frequency − 1|
--   not_permuted   ranks that keep the types with a count from being ranked 1 … once each
--   out_of_order   types with a larger count than the one ranked before them
--   outside        percentiles outside 0…100, missing where there is a count, or present without
--                  one
--   falling        types whose percentile is above that of a type with a larger count

create or replace view audit_frequency as
with run as (
    select run_id, tokenizer_id, frequency_source_id from dim_run where status = 'published'
),

graded as (
    select
        tokenizer_id,
        frequency_source_id,
        count,
        frequency,
        percentile,
        occurrence_percentile,
        rank,
        lag(count) over ranked as count_before,
        lag(percentile) over ranked as percentile_before
    from token_frequency
    window ranked as (
        partition by tokenizer_id, frequency_source_id, rank is null order by rank
    )
),

checked as (
    select
        tokenizer_id,
        frequency_source_id,
        abs(1 - sum(frequency::decimal(38, 18)))::double as off_one,
        count(rank) - count(distinct rank)
        + abs(count(rank)::bigint - coalesce(max(rank), 0))
        + count_if((rank is null) <> (count = 0)) as not_permuted,
        count_if(rank is not null and count > count_before) as out_of_order,
        count_if(
            not coalesce(percentile between 0 and 100, count = 0)
            or not coalesce(occurrence_percentile between 0 and 100, count = 0)
        ) as outside,
        count_if(rank is not null and percentile > percentile_before) as falling
    from graded
    group by all
),

final as (
    select run.run_id, off_one, not_permuted, out_of_order, outside, falling
    from run
    join checked using (tokenizer_id, frequency_source_id)
)

select * from final;
