-- mutual_information: mean mutual information of pairs within and between groups.
-- One row per run × preset × token_group × estimator × group × draw × comparison × other group.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare: the positions measured, and the influence that ranks the neurons
--   layer              layer of the neurons
--   estimator          binned (16 bins of equal frequency) or ksg (3 neighbours)
--   group_name         group of neurons (see neuron_group)
--   k                  neurons in the group
--   draw               0 the group itself; 1, 2 … the random groups (control)
--   pool               where its random groups are drawn: layer (see neuron_group)
--   comparison         within a group, between two groups of a kind, or a group with all random
--                      ones
--   other_group        group that it is compared with
--   other_k            neurons in the other group
--   other_draw         NULL for random: the mean is over all draws
--   positions          number of positions
--   pairs              pairs of neurons that have a value
--   undefined_neurons  neurons of the group that are constant over these positions
--   mean_information   mean over the pairs, nats
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Coordination"; ksg covers only the tested groups and a few random ones,
-- over 1,000 positions.

create or replace view mutual_information as
select
    run.run_id,
    information.preset,
    information.token_group,
    run.layer,
    information.estimator,
    information.group_name,
    information.k,
    information.draw,
    information.pool,
    information.comparison,
    information.other_group,
    information.other_k,
    information.other_draw,
    information.positions,
    information.pairs,
    information.undefined_neurons,
    information.mean_information,
    information.reason
from store.mutual_information as information
join store.run as run using (run_key);
