-- neuron_group: groups of neurons chosen by what they do, and random groups to compare with.
-- One row per run × preset × token_group × group_name × k × pool × draw × neuron.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare: the positions measured, and the influence that ranks the neurons
--   layer        layer of the neurons
--   group_name   boost, suppress; plateau, excitatory, inhibitory; top, top_boost, top_suppress;
--                boost_settled, suppress_settled; or control
--   k            neurons in the group
--   draw         0 the group itself; 1, 2 … the random groups (control)
--   pool         where a random group is drawn: disjoint, from the neurons in no tested group of
--                the preset (the settled ones do not count), or layer, from all of them; NULL for a
--                tested group
--   neuron       its index in the layer; NULL if the group cannot be formed
--   reason       why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Neuron groups"; boost and suppress: the 50 most influential neurons of
-- each sign. plateau: by neuron_deviation, excitatory and inhibitory its two signs. top: the top
-- 1 %. boost_settled and suppress_settled: the 50 of each settled sign (neuron_sign); no analysis
-- takes them by default. neuron_group_summary says how many signs of a group are mixed. control:
-- 100 seeded random groups of each size and pool; compare only with those of one pool. If the
-- tested groups hold more than a tenth of the layer, there is only layer.

create or replace view neuron_group as
select
    run.run_id,
    result.preset,
    result.token_group,
    run.layer,
    result.group_name,
    result.k,
    result.draw,
    result.pool,
    result.neuron,
    result.reason
from store.neuron_group as result
join store.run as run using (run_key);
