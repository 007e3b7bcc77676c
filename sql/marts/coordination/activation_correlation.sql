-- activation_correlation: mean Pearson correlation of the activations within and between groups.
-- One row per run × preset × token_group × group × draw × comparison × other group.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        positions that it is measured over, and the influence that ranks the
--                      neurons: rare
--   layer              layer of the neurons
--   group_name         group of neurons (see neuron_group)
--   k                  neurons in the group
--   draw               0 the group itself; 1, 2 … the random groups (control)
--   comparison         within a group, between two groups of a kind, or of a group with all random
--                      ones
--   other_group        group that it is compared with
--   other_k            neurons in the other group
--   other_draw         NULL for random: the mean is over all draws
--   positions          number of positions
--   pairs              of neurons that have a value
--   undefined_neurons  of the group, constant over these positions
--   mean_correlation   mean over the pairs
--   low                lower end of the 95 % interval over windows; NULL for random groups
--   high               upper end of the same
--   reason             why a value is NULL; NULL where there is nothing to say
--
-- See docs/definitions.md, "Coordination"; ES §3.3, table 1.

create or replace view activation_correlation as
select
    run.run_id,
    correlation.preset,
    correlation.token_group,
    run.layer,
    correlation.group_name,
    correlation.k,
    correlation.draw,
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
