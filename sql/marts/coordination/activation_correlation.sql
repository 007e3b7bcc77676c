-- activation_correlation: mean Pearson correlation of the activations within and between groups.
-- One row per run × preset × token_group × space × group × draw × comparison × other group.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare: the positions measured, and the influence that ranks the neurons
--   layer              layer of the neurons
--   space              activation, which ES prints, or abs_activation, the absolute values
--   group_name         group of neurons (see neuron_group)
--   k                  neurons in the group
--   draw               0 the group itself; 1, 2 … the random groups (control)
--   pool               where its random groups are drawn: disjoint, or layer if the tested groups
--                      hold too much of it (see neuron_group)
--   comparison         within a group, between two groups of a kind, or a group with all random
--                      ones
--   other_group        group that it is compared with
--   other_k            neurons in the other group
--   other_draw         NULL for random: the mean is over all draws
--   positions          number of positions
--   pairs              pairs of neurons that have a value
--   undefined_neurons  neurons of the group that are constant over these positions
--   mean_correlation   mean over the pairs
--   low                lower end of the 95 % interval over windows; NULL for random groups
--   high               upper end of the same
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Coordination"; ES §3.3, table 1. In a gated MLP the up projection gives
-- an activation its sign; abs_activation shows which neurons act together whatever the sign.

create or replace view activation_correlation as
select
    run.run_id,
    correlation.preset,
    correlation.token_group,
    run.layer,
    correlation.space,
    correlation.group_name,
    correlation.k,
    correlation.draw,
    correlation.pool,
    correlation.comparison,
    correlation.other_group,
    correlation.other_k,
    correlation.other_draw,
    correlation.positions,
    correlation.pairs,
    correlation.undefined_neurons,
    correlation.mean_correlation,
    correlation.low,
    correlation.high,
    correlation.reason
from store.activation_correlation as correlation
join store.run as run using (run_key);
