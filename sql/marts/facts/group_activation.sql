-- group_activation: how active a group of neurons is at each position, as one number.
-- Macro group_activation(run, preset_name, draws := 20).
-- Example: from group_activation('embedded-step6144', 'es', draws := 2)
--   run_id       the run
--   preset       preset of the rare positions and of the groups (see neuron_group)
--   group_name   boost, suppress, or control: random groups of the same size
--   draw         0 the group itself; 1, 2 … the random groups, up to `draws`, from the pool
--                disjoint if the run has it, else layer
--   position_id  a position with a rare target
--   window_id    its window
--   activation   mean activation of the group's neurons, each first scaled to mean 0 and variance 1
--                over the rare positions
--
-- ES §6: do influential neurons of several models co-activate? Runs that share their positions can
-- be joined on position_id.

create or replace macro group_activation(run, preset_name, draws := 20) as table
with chosen as (
    select r.run_key, r.run_id
    from store.run as r
    where r.run_key = run_key_of(run)
),

position as (
    select g.position_id, p.window_id
    from store.position_group as g
    join chosen as c using (run_key)
    join store.dim_position as p using (run_key, position_id)
    where g.preset = preset_of(preset_name) and g.token_group = 'rare'
),

member as (
    select g.group_name, g.draw, g.neuron
    from store.neuron_group as g
    join chosen as c using (run_key)
    where
        g.preset = preset_name and g.token_group = 'rare' and g.k = 50
        and g.neuron is not null
        and (
            g.group_name in ('boost', 'suppress')
            or (g.group_name = 'control' and g.draw <= draws)
        )
    qualify g.pool is not distinct from min(g.pool) over (partition by g.group_name)
),

effect as (
    select e.neuron, e.position_id, e.activation::double as activation
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron in (select m.neuron from member as m)
        and e.position_id in (select p.position_id from position as p)
),

scale as (
    select
        e.neuron,
        avg(e.activation order by e.position_id) as mean,
        stddev_pop(e.activation order by e.position_id) as sd
    from effect as e
    group by e.neuron
),

final as (
    select
        c.run_id,
        preset_name as preset,
        m.group_name,
        m.draw,
        p.position_id,
        p.window_id,
        avg((e.activation - s.mean) / s.sd order by e.neuron) as activation
    from effect as e
    join scale as s using (neuron)
    join member as m using (neuron)
    join position as p using (position_id)
    cross join chosen as c
    where s.sd > 0
    group by c.run_id, m.group_name, m.draw, p.position_id, p.window_id
    order by m.group_name, m.draw, p.position_id
)

select * from final;
