-- audit_value: values of a run's parts that must lie between bounds.
-- One row per run × relation × expectation that applies to the run.
--   run_id        the run
--   relation      the relation it is about
--   expectation   what must hold
--   observed      the value; infinite if it is missing
--   least         observed must be at least this; NULL: no bound
--   most          observed must be at most this; NULL: no bound
--   is_integrity  no reason can let the run through (see audit_verdict)
--
-- Tokens of text fall with rank about as 1/rank (Zipf): the published counts at hand have slopes
-- from -0.99 to -0.92. Counts that do not fall, or are not of text, lie outside.

create or replace view audit_value as
with run as (
    select * from dim_run where status = 'published'
),

sampled as (
    select
        run.run_id,
        run.tokenizer_id,
        run.frequency_source_id,
        position.target_token_id as token_id,
        count(*) as sampled
    from dim_position as position
    join run using (run_id)
    where
        run.frequency_source like 'counted over %'
        and run.identity ->> 'contexts' = 'sample'
        and position.target_token_id is distinct from run.separator_token_id
    group by all
),

covered as (
    select
        sampled.run_id,
        sum(greatest(sampled.sampled - counted.count::bigint, 0)) as uncounted
    from sampled
    join token_frequency as counted using (tokenizer_id, frequency_source_id, token_id)
    join audit_token as total using (run_id)
    join run using (run_id)
    where total.occurrences >= run.positions
    group by sampled.run_id
),

measured as (
    select
        run_id,
        'dim_run' as relation,
        'numeric self-check is within tolerance' as expectation,
        coalesce(self_check_error, 'inf'::double) as observed,
        0 as least,
        1 as most
    from run
    union all
    select
        run_id,
        'dim_run',
        'structural self-check is within tolerance',
        coalesce(structural_check_error, 'inf'::double),
        0,
        1
    from run
    union all
    select
        audit_token.run_id,
        'token_frequency',
        'counts fall with rank about as Zipf''s law says',
        audit_token.zipf_slope,
        -2.5,
        -0.3
    from audit_token
    join run using (run_id)
    where audit_token.zipf_slope is not null
    union all
    select
        run_id,
        'token_frequency',
        'counts of the corpus cover the sample drawn from it',
        uncounted,
        0,
        0
    from covered
),

final as (
    select
        run_id,
        relation,
        expectation,
        observed::double as observed,
        least::double as least,
        most::double as most,
        false as is_integrity
    from measured
)

select * from final;
