-- power_law_at: the power law on any window of ranks.
-- Macro power_law_at(run, first, last).
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare or common
--   layer              layer of the neurons
--   first_rank         the window asked for
--   last_rank          the same
--   kappa              log influence = −κ log rank + β: least squares, one point a rank
--   beta               β of the same
--   r2                 share of the variance of log influence on the window that the line explains
--   share_within_0_1   of all ranks: |deviation from the power law| < 0.1
--   neurons_above_0_5  deviation from the power law > 0.5
--   ranks              neurons with an influence above 0
--   reason             why there is no fit; NULL where there is one
--
-- SPEC 3, the explicit windows; power_law_fit has the window auto, regime_fit also the paper's.

create or replace macro power_law_at(run, first, last) as table
with chosen as (
    select run_key, run_id, layer from store.run where run_id = run
),

curve as (
    select preset, token_group, ln(rank) as x, rank, ln(influence) as y
    from store.neuron_influence
    join chosen using (run_key)
    where influence > 0
),

line as (
    select
        preset,
        token_group,
        count(*) filter (rank between first and last) as points,
        count(*) as ranks,
        regr_slope(y, x) filter (rank between first and last) as slope,
        regr_intercept(y, x) filter (rank between first and last) as beta,
        regr_r2(y, x) filter (rank between first and last) as r2
    from curve
    group by preset, token_group
),

fitted as (
    select
        *,
        first >= 1 and last > first and last <= ranks and slope is not null as is_fitted
    from line
),

near as (
    select
        preset,
        token_group,
        avg((abs(y - (slope * x + beta)) < 0.1)::integer) as share_within_0_1,
        count(*) filter (y - (slope * x + beta) > 0.5) as neurons_above_0_5
    from curve
    join fitted using (preset, token_group)
    where is_fitted
    group by preset, token_group
)

select
    chosen.run_id,
    preset,
    token_group,
    chosen.layer,
    first as first_rank,
    last as last_rank,
    if(is_fitted, -slope, null) as kappa,
    if(is_fitted, beta, null) as beta,
    if(is_fitted, r2, null) as r2,
    near.share_within_0_1,
    near.neurons_above_0_5,
    ranks,
    if(is_fitted, null, format('ranks {} to {} are no window of {} ranks', first, last, ranks))
        as reason
from fitted
left join near using (preset, token_group)
cross join chosen
order by preset, token_group desc;
