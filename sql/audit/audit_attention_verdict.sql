-- audit_attention_verdict: what must hold for attention before it is added to a run.
-- One row per run that has it × relation × expectation.
--   run_id        the run
--   suite         attention
--   relation      the relation it is about
--   expectation   what must hold
--   observed      how many rows, edits or cells violate it
--   least         observed must be at least this
--   most          observed must be at most this
--   failures      how many rows, edits or cells violate it; 0 if it holds
--   is_integrity  no reason can let it through

create or replace view audit_attention_verdict as
with run as (
    select run_id, neurons from dim_run where status = 'published'
),

described as (
    select
        run_id,
        head_ablation,
        loss_positions,
        list_sum(heads) as heads,
        count_if(not coalesce(structural_check_error <= 1, false)) as unconfirmed
    from dim_attention
    group by all
),

cell as (
    select distinct run_id, head_ablation, cell, positions, has_loss from dim_attention_cell
),

cells as (
    select run_id, head_ablation, count(*) as cells, count_if(has_loss) as loss_cells
    from cell
    group by all
),

in_cells as (
    select run_id, head_ablation, preset, token_group, sum(positions) as positions
    from dim_attention_cell
    group by all
),

in_group as (
    select run_id, preset, token_group, count(*) as positions from position_group group by all
),

grouped as (
    select
        described.run_id,
        described.head_ablation,
        count_if(in_cells.positions is distinct from in_group.positions) as wrong_groups
    from described
    join in_group using (run_id)
    left join in_cells using (run_id, head_ablation, preset, token_group)
    group by all
),

edit as (
    select run_id, head_ablation, edit, kind, feeds_neurons, largest_change
    from dim_attention_edit
    union all
    select run_id, head_ablation, 0, 'none', true, 0.0 from dim_attention
),

-- A cell whose count, sum and largest of neurons are right has each of them once
activation_cell as (
    select
        run_id,
        head_ablation,
        edit,
        cell,
        count(*) as rows,
        sum(neuron) as neuron_sum,
        max(neuron) as last_neuron,
        count_if(not isfinite(activation_sum)) as bad
    from agg_attention_activation
    group by all
),

activation as (
    select
        activation_cell.run_id,
        activation_cell.head_ablation,
        activation_cell.edit,
        count(*) as cells,
        count_if(
            activation_cell.rows <> run.neurons
            or activation_cell.last_neuron <> run.neurons - 1
            or activation_cell.neuron_sum <> run.neurons * (run.neurons - 1) // 2
        ) as wrong,
        sum(activation_cell.bad) as bad
    from activation_cell
    join run using (run_id)
    group by all
),

effect as (
    select
        run_id,
        head_ablation,
        edit,
        count(*) as rows,
        count(distinct position_id) as positions,
        count_if(not isfinite(delta_loss)) as bad
    from fct_attention_effect
    group by all
),

edits as (
    select
        edit.run_id,
        edit.head_ablation,
        count(*) - count(distinct edit.edit) as repeated,
        count_if(
            coalesce(activation.wrong, 0) > 0
            or coalesce(activation.cells, 0) <> case
                when not edit.feeds_neurons then 0
                when starts_with(edit.kind, 'patch') then cells.loss_cells
                else cells.cells
            end
        ) as incomplete,
        coalesce(sum(activation.bad), 0) as bad_sums,
        count_if(
            edit.edit > 0
            and (
                effect.rows is distinct from described.loss_positions
                or effect.positions is distinct from described.loss_positions
            )
        ) as unmeasured,
        coalesce(sum(effect.bad), 0) as bad_deltas,
        count_if(not edit.feeds_neurons and edit.largest_change <> 0) as unexplained
    from edit
    join described using (run_id, head_ablation)
    join cells using (run_id, head_ablation)
    left join activation using (run_id, head_ablation, edit)
    left join effect using (run_id, head_ablation, edit)
    group by all
),

looked as (
    select run_id, head_ablation, attention_layer, head, cell, sum(weight_sum) as weight
    from agg_attention_distance
    group by all
),

attention as (
    select
        described.run_id,
        described.head_ablation,
        any_value(described.heads * cells.cells) - count(looked.weight) as unseen,
        count_if(not coalesce(abs(looked.weight / cell.positions - 1) < 1e-2, false)) as astray,
        count_if(
            not coalesce(
                concentrated.gini_sum / cell.positions between -1e-3 and 1
                and concentrated.entropy_sum >= -1e-3,
                false
            )
        ) as bad_ginis
    from described
    join cells using (run_id, head_ablation)
    join cell using (run_id, head_ablation)
    left join looked using (run_id, head_ablation, cell)
    left join agg_attention_head as concentrated using (
        run_id, head_ablation, attention_layer, head, cell
    )
    group by described.run_id, described.head_ablation
),

judged as (
    select
        described.run_id,
        unnest([
            {
                relation: 'dim_attention', expectation: 'structural self-check is within tolerance',
                failures: described.unconfirmed
            },
            {
                relation: 'dim_attention_cell',
                expectation: 'positions are those of position_group',
                failures: grouped.wrong_groups
            },
            {
                relation: 'dim_attention_edit', expectation: 'has every edit once',
                failures: edits.repeated
            },
            {
                relation: 'dim_attention_edit',
                expectation: 'without a path to the neurons nothing changes',
                failures: edits.unexplained
            },
            {
                relation: 'agg_attention_activation',
                expectation: 'has every edit, cell and neuron once', failures: edits.incomplete
            },
            {
                relation: 'agg_attention_activation', expectation: 'activation_sum is finite',
                failures: edits.bad_sums
            },
            {
                relation: 'fct_attention_effect',
                expectation: 'has every edit at every position of the subsample once',
                failures: edits.unmeasured
            },
            {
                relation: 'fct_attention_effect', expectation: 'delta_loss is finite',
                failures: edits.bad_deltas
            },
            {
                relation: 'agg_attention_distance', expectation: 'has every head and cell',
                failures: abs(attention.unseen)
            },
            {
                relation: 'agg_attention_distance', expectation: 'weights of a position sum to 1',
                failures: attention.astray
            },
            {
                relation: 'agg_attention_head', expectation: 'gini is from 0 to 1',
                failures: attention.bad_ginis
            }
        ], recursive := true)
    from described
    left join grouped using (run_id, head_ablation)
    left join edits using (run_id, head_ablation)
    left join attention using (run_id, head_ablation)
),

final as (
    select
        run_id,
        'attention' as suite,
        relation,
        expectation,
        sum(coalesce(failures, 1))::double as observed,
        0::double as least,
        0::double as most,
        sum(coalesce(failures, 1))::ubigint as failures,
        true as is_integrity
    from judged
    group by all
)

select * from final;
