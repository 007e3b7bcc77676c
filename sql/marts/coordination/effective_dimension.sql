-- effective_dimension: in how many dimensions a group of neurons acts.
-- One row per run × preset × token_group × group_name × k × draw × standardised × threshold.
--   run_id                      the run
--   preset                      definition of rare and common (see position_group)
--   token_group                 positions that it is measured over, and the influence that ranks
--                               the neurons: rare
--   layer                       layer of the neurons
--   group_name                  group of neurons (see neuron_group)
--   k                           neurons in the group
--   draw                        0 the group itself; 1, 2 … the random groups (control)
--   pool                        where the random groups beside it are drawn: layer (see
--                               neuron_group)
--   standardised                each neuron to unit variance first
--   threshold                   τ, share of the variance
--   positions                   number of positions
--   undefined_neurons           of the group, constant over these positions
--   dimension                   principal components that reach τ (eq. 7)
--   interpolated_dimension      where the cumulative share crosses τ: what tests should compare
--   dimension_percent           the same as % of k
--   dimension_percent_low       lower end of the 95 % interval of what samples of so many positions
--                               give (jackknife over windows); NULL for random groups
--   dimension_percent_high      upper end of the same
--   participation_ratio         (Σλ)² / Σλ²
--   participation_percent       the same as % of k
--   participation_percent_low   lower end of its 95 % interval (reflected bootstrap over windows);
--                               NULL for random groups
--   participation_percent_high  upper end of the same
--   reason                      why a value is NULL; NULL where there is nothing to say
--
-- See docs/definitions.md, "Coordination"; ES eq. 7, table 2 and A.1.

create or replace view effective_dimension as
select
    run.run_id,
    dimension.preset,
    dimension.token_group,
    run.layer,
    dimension.group_name,
    dimension.k,
    dimension.draw,
    dimension.pool,
    dimension.standardised,
    dimension.threshold,
    dimension.positions,
    dimension.undefined_neurons,
    dimension.dimension,
    dimension.interpolated_dimension,
    dimension.dimension_percent,
    dimension.dimension_percent_low,
    dimension.dimension_percent_high,
    dimension.participation_ratio,
    dimension.participation_percent,
    dimension.participation_percent_low,
    dimension.participation_percent_high,
    dimension.reason
from store.effective_dimension as dimension
join store.run as run using (run_key);
