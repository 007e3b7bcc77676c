-- quality_result: what the checks of each run found, refused runs included.
-- One row per run × suite × relation × expectation.
--   run_id        the run
--   suite         parts: what ingest wrote; marts: what publishing computed from it; drift: against
--                 the previous training step of the same model; groups: groups ablated at once
--   relation      the relation it is about
--   expectation   what must hold
--   observed      how many rows, neurons or values violate it; or the value that must lie within
--                 the bounds
--   expected      bounds of observed, both included
--   success       observed is as expected
--   is_integrity  without it other relations would be wrong or fail, so no reason can publish such
--                 a run
--   checked_by    publish, or the command check (Great Expectations)
--   checked_at    UTC
--   least         lower bound of observed; NULL: none
--   most          upper bound of observed; NULL: none
--
-- For a run that was published although a check failed, dim_run has the reason.

create or replace view quality_result as
select
    run.run_id,
    quality.suite,
    quality.relation,
    quality.expectation,
    quality.observed,
    case
        when quality.least = quality.most then format('{:g}', quality.least)
        when quality.least is null then format('up to {:g}', quality.most)
        when quality.most is null then format('from {:g}', quality.least)
        else format('{:g} to {:g}', quality.least, quality.most)
    end as expected,
    quality.success,
    quality.is_integrity,
    quality.checked_by,
    quality.checked_at,
    quality.least,
    quality.most
from store.quality_result as quality
join store.run as run using (run_key);
