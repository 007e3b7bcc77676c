-- neuron_activation: how a neuron's activations are spread, as a histogram.
-- Macro neuron_activation(run, neuron_index, bins := 40).
-- Example: from neuron_activation('embedded-step6144', 7, bins := 10)
--   run_id      the run
--   layer       layer of the neuron
--   neuron      its index in the layer
--   bin         from 1, of equal width from the smallest to the largest activation
--   low         its lower edge
--   high        its upper edge
--   positions   positions in the bin
--   rare        how many of these have a rare target in preset es
--   delta_loss  mean change of the loss at these positions when the neuron is ablated, nats; NULL:
--               none

create or replace macro neuron_activation(run, neuron_index, bins := 40) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

effect as (
    select e.position_id, e.activation, e.delta_loss
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

span as (
    select
        min(e.activation)::double as low,
        (max(e.activation)::double - min(e.activation)) / bins as width
    from effect as e
),

binned as (
    select
        case
            when s.width > 0 then least(bins, 1 + floor((e.activation - s.low) / s.width))
            else 1
        end::uinteger as bin,
        e.position_id,
        e.delta_loss,
        g.position_id is not null as is_rare
    from effect as e
    cross join span as s
    left join (
        select o.position_id
        from store.position_group as o
        join chosen as c using (run_key)
        where o.preset = 'es' and o.token_group = 'rare'
    ) as g using (position_id)
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        b.bin::uinteger as bin,
        s.low + (b.bin - 1) * s.width as low,
        s.low + b.bin * s.width as high,
        count(n.position_id)::uinteger as positions,
        count(n.position_id) filter (n.is_rare)::uinteger as rare,
        avg(n.delta_loss order by n.position_id) as delta_loss
    from range(1, bins + 1) as b (bin)
    cross join span as s
    cross join chosen as c
    left join binned as n on n.bin = b.bin
    where s.low is not null
    group by c.run_id, c.layer, b.bin, s.low, s.width
    order by b.bin
)

select * from final;
