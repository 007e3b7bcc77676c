-- neuron_neighbour: the nearest neurons of a neuron in its layer.
-- Macro neuron_neighbour(run, neuron_index, neighbours := 5).
-- Example: from neuron_neighbour('embedded-step6144', 7)
--   run_id        the run
--   layer         layer of the neuron
--   neuron        its index in the layer
--   kind          weight: by cosine similarity of output weights; activation: by Pearson's
--                 correlation of activations over the run's positions
--   place         1 = the largest |similarity| of that kind, ties to the lower index
--   other_neuron  the neighbour
--   similarity    between −1 and 1
--
-- A neuron whose activation never changes, or whose weights are all 0, has none of that kind and is
-- nobody's. The report finds those of many neurons at once by analyses/coordination/neighbours.py.

create or replace macro neuron_neighbour(run, neuron_index, neighbours := 5) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

own as (
    select list(e.activation order by e.position_id) as activations
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

by_activation as (
    select
        'activation' as kind,
        e.neuron,
        corr(e.activation::double, o.activations[e.position_id + 1]::double) as similarity
    from store.effect as e
    cross join own as o
    where e.run_key = (select c.run_key from chosen as c)
    group by e.neuron
),

weight as (
    select w.neuron, w.w_out::double[] as w_out
    from store.neuron_weight as w
    join chosen as c using (run_key)
),

by_weight as (
    select
        'weight' as kind,
        w.neuron,
        list_cosine_similarity(w.w_out, o.w_out) as similarity
    from weight as w
    cross join (from weight where neuron = neuron_index) as o
),

ranked as (
    select
        s.kind,
        s.neuron,
        s.similarity,
        row_number() over (partition by s.kind order by abs(s.similarity) desc, s.neuron) as place
    from (from by_weight union all by name from by_activation) as s
    where s.neuron <> neuron_index and isfinite(s.similarity)
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        r.kind,
        r.place::uinteger as place,
        r.neuron as other_neuron,
        r.similarity
    from ranked as r
    cross join chosen as c
    where r.place <= neighbours
    order by r.kind desc, r.place
)

select * from final;
