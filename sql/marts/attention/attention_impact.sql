-- attention_impact: what an edit does to each neuron at rare and at common tokens.
-- One row per run × head_ablation × preset × token_group × edit × neuron.
--   run_id           the run
--   head_ablation    what replaced a head's output: zero, mean or uniform
--   preset           definition of rare and common (see position_group)
--   token_group      rare or common
--   layer            layer of the neurons
--   edit             see dim_attention_edit
--   neuron           its index in the layer
--   positions        positions that the means are taken over
--   mean_activation  mean activation without the edit
--   mean_change      mean change of the activation by the edit
--
-- NC eq. 3: impact is |mean_change| / |mean_activation|. Patches, and so their means, cover only
-- the subsample.

create or replace view attention_impact as
select
    run.run_id,
    stored.head_ablation,
    stored.preset,
    stored.token_group,
    run.layer,
    stored.edit,
    stored.neuron,
    stored.positions,
    stored.mean_activation,
    stored.mean_change
from store.attention_impact as stored
join store.run as run using (run_key);

insert into store.attention_impact by name
with edit as (
    select * from store.dim_attention_edit where run_key = $run_key
),

cell as (
    select * from store.dim_attention_cell where run_key = $run_key
),

activation as (
    select * from store.agg_attention_activation where run_key = $run_key
),

clean as (
    select
        head_ablation,
        preset,
        token_group,
        neuron,
        nats(sum(units(activation_sum))) as everywhere,
        nats(sum(units(activation_sum)) filter (has_loss)) as subsample,
        sum(positions) as positions,
        sum(positions) filter (has_loss) as subsample_positions
    from activation
    join cell using (head_ablation, cell)
    where edit = 0
    group by all
),

changed as (
    select
        head_ablation,
        preset,
        token_group,
        edit,
        starts_with(kind, 'patch') as is_patch,
        neuron,
        nats(sum(units(activation_sum))) as change
    from activation
    join cell using (head_ablation, cell)
    join edit using (head_ablation, edit)
    group by all
),

final as (
    select
        $run_key as run_key,
        head_ablation,
        preset,
        token_group,
        edit,
        neuron,
        case when is_patch then subsample_positions else positions end as positions,
        case when is_patch then subsample else everywhere end
        / case when is_patch then subsample_positions else positions end as mean_activation,
        change / case when is_patch then subsample_positions else positions end as mean_change
    from changed
    join clean using (head_ablation, preset, token_group, neuron)
    order by head_ablation, preset, token_group, edit, neuron
)

select * from final;
