-- effective_dimension: the number of dimensions in which a group of neurons acts.
-- One row per run × preset × token_group × group_name × k × draw × standardised × threshold.
--   run_id                      the run
--   preset                      definition of rare and common (see position_group)
--   token_group                 rare: the positions measured, and the influence that ranks the
--                               neurons
--   layer                       layer of the neurons
--   group_name                  group of neurons (see neuron_group)
--   k                           neurons in the group
--   draw                        0 the group itself; 1, 2 … the random groups (control)
--   pool                        where its random groups are drawn: layer (see neuron_group)
--   standardised                whether each neuron is first scaled to unit variance
--   threshold                   τ, share of the variance
--   positions                   number of positions
--   undefined_neurons           neurons of the group that are constant over these positions
--   dimension                   principal components that reach τ (eq. 7)
--   interpolated_dimension      where the cumulative share crosses τ: what tests should compare
--   dimension_percent           the same as % of k
--   dimension_percent_low       lower end of the 95 % interval for samples of so many positions
--                               (jackknife over windows); NULL for random groups
--   dimension_percent_high      upper end of the same
--   participation_ratio         (Σλ)² / Σλ²
--   participation_percent       the same as % of k
--   participation_percent_low   lower end of its 95 % interval (reflected bootstrap over windows);
--                               NULL for random groups
--   participation_percent_high  upper end of the same
--   reason                      why a value is NULL; NULL if none is
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
