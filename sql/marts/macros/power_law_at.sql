-- power_law_at: the power law on any window of ranks.
-- Macro power_law_at(run, first, last).
-- Example: from power_law_at('embedded-step6144', 5, 20)
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare or common
--   layer              layer of the neurons
--   first_rank         the window asked for
--   last_rank          the same
--   kappa              log influence = −κ log rank + β: least squares, one point per rank
--   beta               its β
--   r2                 share of the variance of log influence on the window that the line explains
--   share_within_0_1   of all ranks: |deviation from the power law| < 0.1
--   neurons_above_0_5  deviation from the power law > 0.5
--   ranks              neurons with an influence above 0
--   reason             why there is no fit; NULL if there is one
--
-- A straight line on a given window; power_law_fit finds the window together with head and tail.

create or replace macro power_law_at(run, first, last) as table
with chosen as (
    select run_key, run_id, layer from store.run where run_key = run_key_of(run)
),

curve as (
    select
        run_id, preset, token_group, layer, rank, ln(rank) as x, ln(influence) as y,
        count(*) over (partition by preset, token_group) as ranks,
        first >= 1 and first < last and last <= ranks and rank between first and last as is_inside
    from store.neuron_influence
    join chosen using (run_key)
    where influence > 0
),

fitted as (
    select
        *,
        regr_slope(y, x) filter (is_inside) over curve as slope,
        regr_intercept(y, x) filter (is_inside) over curve as beta,
        regr_r2(y, x) filter (is_inside) over curve as r2,
        y - (slope * x + beta) as deviation
    from curve
    window curve as (partition by preset, token_group)
)

select
    run_id,
    preset,
    token_group,
    layer,
    first as first_rank,
    last as last_rank,
    -slope as kappa,
    beta,
    r2,
    avg((abs(deviation) < 0.1)::integer) as share_within_0_1,
    sum((deviation > 0.5)::integer)::bigint as neurons_above_0_5,
    ranks,
    if(slope is null, format('ranks {} to {} are no window of {} ranks', first, last, ranks), null)
        as reason
from fitted
group by run_id, preset, token_group, layer, slope, beta, r2, ranks
order by preset, token_group desc;
