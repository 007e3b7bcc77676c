-- graph_modularity: how well the signed correlation graph of a group divides into communities.
-- One row per run × preset × token_group × group_name × k × draw × method × communities_asked.
--   run_id                  the run
--   preset                  definition of rare and common (see position_group)
--   token_group             positions that it is measured over, and the influence that ranks the
--                           neurons: rare
--   layer                   layer of the neurons
--   group_name              group of neurons (see neuron_group)
--   k                       neurons in the group
--   draw                    0 the group itself; 1, 2 … the random groups (control)
--   pool                    where the random groups beside it are drawn: layer (see neuron_group)
--   method                  louvain on |w|, leiden on the signed graph, spectral on |w|
--   communities_asked       of spectral clustering; NULL for the others
--   threshold               edges are |correlation| above it
--   positions               number of positions
--   undefined_neurons       of the group: constant, so isolated
--   edges                   pairs above the threshold
--   negative_edges          those with a negative correlation
--   isolated                neurons without an edge; in no community
--   components              connected, of the other neurons
--   runs                    seeds of Louvain and Leiden, starts of k-means
--   modularity              NC eq. 6 on |w|, of the best partition
--   signed_modularity       NC eq. 7, of the same partition
--   communities             of the same partition: how many
--   signed_modularity_low   lower end of its 95 % interval over windows; NULL for random groups and
--                           spectral
--   signed_modularity_high  upper end of the same
--   signed_modularity_mean  over the runs
--   signed_modularity_sd    over the runs
--   communities_mean        over the runs
--   communities_sd          over the runs
--   run_signed_modularity   of each run
--   neurons                 those that have an edge
--   labels                  the community of each in the best partition, from 1
--   reason                  why a value is NULL; NULL where there is nothing to say
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
