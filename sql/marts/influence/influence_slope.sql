-- influence_slope: slope and curvature of the influence curve at each rank.
-- One row per run × preset × token_group × rank with an influence above 0.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare or common
--   layer              layer of the neurons
--   rank               1 is the largest influence
--   log_rank           its natural logarithm
--   local_slope        least-squares slope of log influence over the ranks within ± 0.25 in log
--                      rank; NULL with fewer than 5 of them
--   second_derivative  the same, taken of the local slopes
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Influence and the power law"; ES §4.1 and fig. 3. The slope_break
-- columns of regime_decision say whether the slope breaks near log rank 5.

create or replace view influence_slope as
select
    run.run_id,
    slope.preset,
    slope.token_group,
    run.layer,
    slope.rank,
    slope.log_rank,
    slope.local_slope,
    slope.second_derivative,
    slope.reason
from store.influence_slope as slope
join store.run as run using (run_key);
