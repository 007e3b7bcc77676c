-- audit_token: what is wrong with the vocabulary and the counts that a run uses, counted.
-- One row per run.
--   run_id           the run
--   tokens           rows of dim_token for its tokenizer
--   distinct_tokens  different token_id in them
--   counted_tokens   rows of token_frequency for its source
--   distinct_counts  different token_id in them
--   unknown_counts   counted tokens that dim_token does not have
--   occurrences      sum of the counts
--   zipf_slope       slope of log count on log rank over ranks 10 to 1,000; NULL with fewer types

create or replace view audit_token as
with run as (
    select run_id, tokenizer_id, frequency_source_id from dim_run
),

token_sum as (
    select
        tokenizer_id,
        count(*) as tokens,
        count(distinct token_id) as distinct_tokens
    from dim_token
    group by tokenizer_id
),

count_sum as (
    select
        counted.tokenizer_id,
        counted.frequency_source_id,
        count(*) as counted_tokens,
        count(distinct counted.token_id) as distinct_counts,
        count_if(token.token_id is null) as unknown_counts,
        sum(counted.count) as occurrences
    from token_frequency as counted
    left join dim_token as token using (tokenizer_id, token_id)
    group by all
),

ranked as (
    select
        tokenizer_id,
        frequency_source_id,
        count,
        row_number() over (
            partition by tokenizer_id, frequency_source_id order by count desc
        ) as rank
    from token_frequency
    where count > 0
),

slope as (
    select
        tokenizer_id,
        frequency_source_id,
        round(regr_slope(ln(count), ln(rank)), 6) as zipf_slope
    from ranked
    where rank between 10 and 1000
    group by all
    having count(*) = 991
),

final as (
    select
        run.run_id,
        coalesce(token_sum.tokens, 0) as tokens,
        coalesce(token_sum.distinct_tokens, 0) as distinct_tokens,
        coalesce(count_sum.counted_tokens, 0) as counted_tokens,
        coalesce(count_sum.distinct_counts, 0) as distinct_counts,
        coalesce(count_sum.unknown_counts, 0) as unknown_counts,
        coalesce(count_sum.occurrences, 0) as occurrences,
        slope.zipf_slope
    from run
    left join token_sum using (tokenizer_id)
    left join count_sum using (tokenizer_id, frequency_source_id)
    left join slope using (tokenizer_id, frequency_source_id)
)

select * from final;
