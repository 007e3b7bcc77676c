-- cosine_similarity: mean cosine similarity of activation traces and of weight vectors.
-- One row per run × preset × token_group × space × group × draw × comparison × other group.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare: the positions measured, and the influence that ranks the neurons
--   layer              layer of the neurons
--   space              activation (not centred, ES eq. 8), w_out, w_in, or w_up of a gated MLP
--   group_name         group of neurons (see neuron_group)
--   k                  neurons in the group
--   draw               0 the group itself; 1, 2 … the random groups (control)
--   pool               where its random groups are drawn: layer for activation, disjoint for
--                      weights, or layer if the tested groups hold too much of it (see
--                      neuron_group)
--   comparison         within a group, between two groups of a kind, or a group with all random
--                      ones
--   other_group        group that it is compared with
--   other_k            neurons in the other group
--   other_draw         NULL for random: the mean is over all draws
--   positions          number of positions; NULL for weights
--   pairs              pairs of neurons that have a value
--   undefined_neurons  neurons of the group whose vector is all zero
--   mean_cosine        mean over the pairs
--   low                lower end of the 95 % interval over windows; NULL for random groups
--   high               upper end of the same
--   reason             why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Coordination"; ES §4.2, table 3. In a gated MLP (a run that has rows of
-- w_up) the neuron's row of w_in is its gate's vector, so w_in says how alike the gates are.

create or replace view cosine_similarity as
select
    run.run_id,
    similarity.preset,
    similarity.token_group,
    run.layer,
    similarity.space,
    similarity.group_name,
    similarity.k,
    similarity.draw,
    similarity.pool,
    similarity.comparison,
    similarity.other_group,
    similarity.other_k,
    similarity.other_draw,
    similarity.positions,
    similarity.pairs,
    similarity.undefined_neurons,
    similarity.mean_cosine,
    similarity.low,
    similarity.high,
    similarity.reason
from store.cosine_similarity as similarity
join store.run as run using (run_key);
