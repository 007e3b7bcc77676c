-- graph_modularity: how well a group's signed correlation graph divides into communities.
-- One row per run × preset × token_group × group_name × k × draw × method × communities_asked.
--   run_id                  the run
--   preset                  definition of rare and common (see position_group)
--   token_group             rare: the positions measured, and the influence that ranks the neurons
--   layer                   layer of the neurons
--   group_name              group of neurons (see neuron_group)
--   k                       neurons in the group
--   draw                    0 the group itself; 1, 2 … the random groups (control)
--   pool                    where its random groups are drawn: layer (see neuron_group)
--   method                  louvain on |w|, leiden on the signed graph, spectral on |w|
--   communities_asked       number that spectral clustering is asked for; NULL for the others
--   threshold               edges are |correlation| above it
--   positions               number of positions
--   undefined_neurons       neurons of the group that are constant, so isolated
--   edges                   pairs above the threshold
--   negative_edges          those with a negative correlation
--   isolated                neurons without an edge; in no community
--   components              connected components of the other neurons
--   runs                    seeds of Louvain and Leiden, starts of k-means
--   modularity              NC eq. 6 on |w|, for the best partition
--   signed_modularity       NC eq. 7, for the same partition
--   communities             number of communities in the same partition
--   signed_modularity_low   lower end of its 95 % interval over windows; NULL for random groups and
--                           spectral
--   signed_modularity_high  upper end of the same
--   signed_modularity_mean  over the runs
--   signed_modularity_sd    over the runs
--   communities_mean        over the runs
--   communities_sd          over the runs
--   run_signed_modularity   signed modularity of each run
--   neurons                 those that have an edge
--   labels                  the community of each in the best partition, from 1
--   reason                  why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Graph"; NC §2, 3, A.1 to A.4, table 1.

create or replace view graph_modularity as
select
    run.run_id,
    modularity.preset,
    modularity.token_group,
    run.layer,
    modularity.group_name,
    modularity.k,
    modularity.draw,
    modularity.pool,
    modularity.method,
    modularity.communities_asked,
    modularity.threshold,
    modularity.positions,
    modularity.undefined_neurons,
    modularity.edges,
    modularity.negative_edges,
    modularity.isolated,
    modularity.components,
    modularity.runs,
    modularity.modularity,
    modularity.signed_modularity,
    modularity.communities,
    modularity.signed_modularity_low,
    modularity.signed_modularity_high,
    modularity.signed_modularity_mean,
    modularity.signed_modularity_sd,
    modularity.communities_mean,
    modularity.communities_sd,
    modularity.run_signed_modularity,
    modularity.neurons,
    modularity.labels,
    modularity.reason
from store.graph_modularity as modularity
join store.run as run using (run_key);
