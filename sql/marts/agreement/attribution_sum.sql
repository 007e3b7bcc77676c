-- attribution_sum: effects and their first-order estimates, summed by token group and window.
-- Macro attribution_sum(run).
-- Example: from attribution_sum('embedded-step6144') limit 5
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common
--   layer               layer of the neuron
--   neuron              its index in the layer
--   window_id           the window; in matched contexts the pair
--   positions           number of the group's positions in it
--   abs_delta_sum       Σ |delta_loss|, nats
--   abs_attributed_sum  Σ |attributed_delta_loss|, nats
--
-- No row where the run has no attributed_delta_loss. It reads every fact of the run; sums are exact
-- (see exact_avg).

-- Positions in the same token groups are of one kind, so that a pair of neuron and position is
-- handled once and not once a group.
create or replace view store.position_kind as
with placed as (
    select
        run_key,
        position_id,
        list((preset, token_group) order by preset, token_group) as groups
    from store.position_group
    group by run_key, position_id
)

select
    placed.run_key,
    placed.position_id,
    coalesce(context.pair_id, position.window_id) as window_id,
    dense_rank() over (partition by placed.run_key order by placed.groups)::smallint as kind,
    placed.groups
from placed
join store.dim_position as position using (run_key, position_id)
left join store.position_context as context using (run_key, position_id);

create or replace macro attribution_sum(run) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where r.run_key = run_key_of(run) and list_contains(r.effects, 'attribution')
),

member as materialized (
    select p.position_id, p.window_id, p.kind, p.groups
    from store.position_kind as p
    where p.run_key = (select k.run_key from chosen as k)
),

summed as materialized (
    select
        e.neuron,
        m.window_id,
        m.kind,
        count(*) as positions,
        sum(abs(units(e.delta_loss))) as delta_units,
        sum(abs(units(e.attributed_delta_loss))) as attributed_units
    from store.effect as e
    join member as m using (position_id)
    where
        e.run_key = (select k.run_key from chosen as k)
        and e.attributed_delta_loss is not null
    group by e.neuron, m.window_id, m.kind
),

of_group as (
    select distinct m.kind, unnest(m.groups) as of
    from member as m
),

final as (
    select
        k.run_id,
        g.of[1] as preset,
        g.of[2] as token_group,
        k.layer,
        s.neuron,
        s.window_id,
        sum(s.positions)::bigint as positions,
        nats(sum(s.delta_units)) as abs_delta_sum,
        nats(sum(s.attributed_units)) as abs_attributed_sum
    from summed as s
    join of_group as g using (kind)
    cross join chosen as k
    group by all
)

select * from final;
