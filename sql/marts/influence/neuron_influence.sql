-- neuron_influence: how much each neuron matters to rare and to common targets.
-- One row per run × preset × token_group × neuron.
--   run_id               the run
--   preset               definition of rare and common (see position_group)
--   token_group          rare or common
--   layer                layer of the neuron
--   neuron               its index in the layer
--   rank                 1 = largest influence, ties to the lower index
--   influence            mean |delta_loss| over the group's positions, nats
--   mean_delta_loss      mean delta_loss over them, nats
--   abs_mean_delta_loss  |mean_delta_loss|, the other reading of NC eq. 1, nats
--   abs_mean_rank        1 = largest abs_mean_delta_loss, ties to the lower index
--   positions            number of positions in the group
--   role                 boost: ablation raises the group's loss; suppress: lowers it; NULL at 0
--
-- See docs/definitions.md, "Neuron effect". Sums are taken in whole units of 2^-40 nats, so they
-- are exact in any order (see exact_avg).

create or replace view neuron_influence as
select
    run.run_id,
    influence.preset,
    influence.token_group,
    run.layer,
    influence.neuron,
    influence.rank,
    influence.influence,
    influence.mean_delta_loss,
    influence.abs_mean_delta_loss,
    influence.abs_mean_rank,
    influence.positions,
    influence.role
from store.neuron_influence as influence
join store.run as run using (run_key);

insert into store.neuron_influence by name
with effect as (
    select neuron, position_id, units(delta_loss) as delta
    from store.effect
    where run_key = $run_key
),

grouped as (
    select preset, token_group, position_id
    from store.position_group
    where run_key = $run_key
),

-- Positions that are in the same groups under every preset are summed once, not once a preset.
membership as (
    select position_id, list((preset, token_group) order by preset) as memberships
    from grouped
    group by position_id
),

kind as (
    select position_id, memberships, dense_rank() over (order by memberships) as kind
    from membership
),

kind_sum as (
    select
        effect.neuron,
        kind.kind,
        count(*) as positions,
        sum(abs(effect.delta)) as abs_delta,
        sum(effect.delta) as delta
    from effect
    join kind using (position_id)
    group by effect.neuron, kind.kind
),

kind_group as (
    select distinct grouped.preset, grouped.token_group, kind.kind
    from grouped
    join kind using (position_id)
),

total as (
    select
        kind_group.preset,
        kind_group.token_group,
        kind_sum.neuron,
        sum(kind_sum.positions) as positions,
        sum(kind_sum.abs_delta) as abs_delta,
        sum(kind_sum.delta) as delta
    from kind_sum
    join kind_group using (kind)
    group by all
),

final as (
    select
        $run_key as run_key,
        preset,
        token_group,
        neuron,
        row_number() over (
            partition by preset, token_group order by abs_delta desc, neuron
        ) as rank,
        nats(abs_delta) / positions as influence,
        nats(delta) / positions as mean_delta_loss,
        abs(nats(delta) / positions) as abs_mean_delta_loss,
        row_number() over (
            partition by preset, token_group order by abs(delta) desc, neuron
        ) as abs_mean_rank,
        positions,
        case when delta > 0 then 'boost' when delta < 0 then 'suppress' end as role
    from total
    order by preset, token_group, rank
)

select * from final;
