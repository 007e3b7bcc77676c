-- neuron_moments: how a neuron's activations and effects are spread, in a few numbers.
-- Macro neuron_moments(run, neuron_index).
-- Example: from neuron_moments('embedded-step6144', 7)
--   run_id       the run
--   layer        layer of the neuron
--   neuron       its index in the layer
--   quantity     activation, or delta_loss (nats)
--   token_group  rare or common targets in preset es; all: every position
--   positions    number of positions
--   mean         mean over them
--   sd           standard deviation
--   skew         skewness: 0 for a symmetric spread, above 0 with a long upper tail
--   kurtosis     excess kurtosis: 0 for a normal spread
--   smallest     smallest value
--   largest      largest value

create or replace macro neuron_moments(run, neuron_index) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

effect as (
    select e.position_id, e.activation::double as activation, e.delta_loss::double as delta_loss
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

labelled as (
    select 'all' as token_group, e.* from effect as e
    union all
    select g.token_group, e.*
    from effect as e
    join store.position_group as g
        on g.position_id = e.position_id
        and g.preset = 'es'
        and g.run_key = (select c.run_key from chosen as c)
),

valued as (
    select
        l.token_group,
        l.position_id,
        unnest(['activation', 'delta_loss']) as quantity,
        unnest([l.activation, l.delta_loss]) as value
    from labelled as l
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        v.quantity,
        v.token_group,
        count(*)::uinteger as positions,
        avg(v.value order by v.position_id) as mean,
        stddev(v.value order by v.position_id) as sd,
        skewness(v.value order by v.position_id) as skew,
        kurtosis(v.value order by v.position_id) as kurtosis,
        min(v.value) as smallest,
        max(v.value) as largest
    from valued as v
    cross join chosen as c
    group by c.run_id, c.layer, v.quantity, v.token_group
    order by v.quantity, list_position(['all', 'rare', 'common'], v.token_group)
)

select * from final;
