-- audit_group: what is wrong with a run's token groups and cells of effects, counted.
-- One row per run that has positions.
--   run_id              the run
--   repeated            position that a preset has twice
--   outside             position in a group that the run does not have, or that has no frequency
--   unknown_groups      row whose token_group is neither rare nor common
--   cell_difference     positions in cells less positions that have a frequency
--   wrong_neurons       neurons that do not have every cell of agg_effect once
--   impossible_sums     row of agg_effect where |Σ delta| exceeds Σ |delta|, or Σ delta² is below 0
--                       or not finite
--   unequal_influence   neurons whose Σ |delta| over cells is not that of preset nc's groups, which
--                       hold the same positions

create or replace view audit_group as
with run as (
    select run_id, neurons from dim_run where status = 'published'
),

-- Not materialized: a filter on the run must reach the tables, where other runs are many.
graded as not materialized (
    select run_id, position_id from position_frequency
),

grouped as (
    select
        position_group.run_id,
        count(*) - count(distinct (position_group.preset, position_group.position_id))
            as repeated,
        count_if(graded.position_id is null) as outside,
        count_if(position_group.token_group not in ('rare', 'common')) as unknown_groups
    from position_group
    left join graded using (run_id, position_id)
    group by position_group.run_id
),

graded_sum as (
    select run_id, count(*) as positions from graded group by run_id
),

cell_sum as (
    select
        run.run_id,
        count(*) as cells,
        sum(hash(cell.cell)) as cell_hash,
        sum(cell.positions) as positions
    from store.effect_cell as cell
    join store.run as run using (run_key)
    group by run.run_id
),

by_neuron as (
    select
        run.run_id,
        effect.neuron,
        count(*) as cells,
        sum(hash(effect.cell)) as cell_hash,
        count_if(
            not coalesce(isfinite(effect.square_sum), false)
            or abs(effect.delta_units) > effect.abs_delta_units
            or effect.square_sum < 0
        ) as impossible,
        nats(sum(effect.abs_delta_units)) as abs_delta
    from store.agg_effect as effect
    join store.run as run using (run_key)
    group by run.run_id, effect.neuron
),

by_group as (
    select run_id, neuron, sum((influence * positions)::decimal(38, 12))::double as abs_delta
    from neuron_influence
    where preset = 'nc'
    group by run_id, neuron
),

effect_sum as (
    select
        by_neuron.run_id,
        count(*) as neurons,
        count_if(
            by_neuron.cells <> cell_sum.cells or by_neuron.cell_hash <> cell_sum.cell_hash
        ) as wrong_cells,
        sum(by_neuron.impossible) as impossible,
        count_if(
            abs(by_neuron.abs_delta - coalesce(by_group.abs_delta, 0))
            > 1e-6 + 1e-9 * by_neuron.abs_delta
        ) as unequal
    from by_neuron
    join cell_sum using (run_id)
    left join by_group using (run_id, neuron)
    group by by_neuron.run_id
),

final as (
    select
        run.run_id,
        coalesce(grouped.repeated, 0) as repeated,
        coalesce(grouped.outside, 0) as outside,
        coalesce(grouped.unknown_groups, 0) as unknown_groups,
        abs(coalesce(cell_sum.positions, 0) - graded_sum.positions) as cell_difference,
        abs(coalesce(effect_sum.neurons, 0) - run.neurons)
        + coalesce(effect_sum.wrong_cells, 0) as wrong_neurons,
        coalesce(effect_sum.impossible, 0) as impossible_sums,
        coalesce(effect_sum.unequal, 0) as unequal_influence
    from run
    join graded_sum using (run_id)
    left join grouped using (run_id)
    left join cell_sum using (run_id)
    left join effect_sum using (run_id)
)

select * from final;
