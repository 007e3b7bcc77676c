-- neuron_cluster: Ward clusters of a group's neurons.
-- One row per run × preset × token_group × group_name × k × draw × threshold.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare: the positions measured, and the influence that ranks the neurons
--   layer              layer of the neurons
--   group_name         group of neurons (see neuron_group)
--   k                  neurons in the group
--   draw               0 the group itself; 1, 2 … the random groups (control)
--   pool               where its random groups are drawn: layer (see neuron_group)
--   threshold          distance at which the tree is cut
--   positions          number of positions
--   undefined_neurons  neurons of the group that are constant over these positions
--   clusters           number of clusters
--   largest_cluster    neurons in the largest cluster
--   neurons            neurons that have a correlation
--   labels             the cluster of each, from 1
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Coordination"; ES eq. 9: distance 1 − |correlation|; the paper cuts at
-- 0.5, its code at 5.

create or replace view neuron_cluster as
select
    run.run_id,
    cluster.preset,
    cluster.token_group,
    run.layer,
    cluster.group_name,
    cluster.k,
    cluster.draw,
    cluster.pool,
    cluster.threshold,
    cluster.positions,
    cluster.undefined_neurons,
    cluster.clusters,
    cluster.largest_cluster,
    cluster.neurons,
    cluster.labels,
    cluster.reason
from store.neuron_cluster as cluster
join store.run as run using (run_key);
