-- power_law_fit: the straight part of log influence against log rank, found and fitted.
-- One row per run × preset × token_group.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neurons
--   rank_window  auto: the middle piece of the best continuous three-piece fit
--   kappa        κ of log influence = −κ log rank + β on the window
--   beta         β of the same
--   r2           share of the variance of log influence on the window that the line explains; NULL
--                where it does not vary
--   first_rank   first rank of the window
--   last_rank    last rank of the window
--   ranks        ranks with an influence above 0, the only ones in the curve
--   reason       why there is no fit; NULL where there is one
--
-- ES eq. 6 and 12, NC eq. 4, in natural logarithms. How the window is found: docs/definitions.md,
-- "Influence and the power law". Publishing hands the run's rows of neuron_influence to a function
-- (`Line` in warehouse/publish/marts.py), and finds here as `line` what that gives back.

create or replace view power_law_fit as
select
    run.run_id,
    fit.preset,
    fit.token_group,
    run.layer,
    fit.rank_window,
    fit.kappa,
    fit.beta,
    fit.r2,
    fit.first_rank,
    fit.last_rank,
    fit.ranks,
    fit.reason
from store.power_law_fit as fit
join store.run as run using (run_key);

insert into store.power_law_fit by name
with fitted as (
    select $run_key as run_key, line.* from line
),

influence as (
    select distinct preset, token_group from store.neuron_influence where run_key = $run_key
),

empty as (
    select
        $run_key as run_key,
        preset.preset,
        side.token_group,
        'auto' as rank_window,
        0 as ranks,
        'no position in the group' as reason
    from store.preset as preset
    cross join (values ('rare'), ('common')) as side (token_group)
    anti join influence using (preset, token_group)
    where preset.percentile is not null
)

select * from fitted
union all by name
select * from empty
order by preset, token_group;
