-- attention_unit: what an edit does to a group's neurons, per unit of windows.
-- One row per run × head_ablation × preset × token_group × group × edit × window_id × neuron.
--   run_id          the run
--   head_ablation   what replaced a head's output: zero, mean or uniform
--   preset          definition of rare and common (see position_group)
--   token_group     rare or common
--   layer           layer of the neurons
--   group_name      group of neurons, chosen on rare tokens (see neuron_group)
--   k               neurons in the group
--   edit            see dim_attention_edit; 0 means unedited
--   window_id       first window of the unit
--   neuron          neuron of the group
--   positions       positions of the token group in the unit
--   activation_sum  for edit 0 the activation, for others its change, summed over the positions
--   has_loss        whether the unit is in the subsample whose loss was measured
--
-- Units are resampled from this (docs/definitions.md, "Attention").

create or replace view attention_unit as
with member as (
    select run_key, preset, group_name, k, neuron
    from store.neuron_group
    where draw = 0 and token_group = 'rare' and neuron is not null
)

select
    run.run_id,
    activation.head_ablation,
    cell.preset,
    cell.token_group,
    run.layer,
    member.group_name,
    member.k,
    activation.edit,
    cell.window_id,
    activation.neuron,
    sum(cell.positions)::uinteger as positions,
    nats(sum(units(activation.activation_sum))) as activation_sum,
    any_value(cell.has_loss) as has_loss
from store.agg_attention_activation as activation
join store.dim_attention_cell as cell using (run_key, head_ablation, cell)
join member on
    activation.run_key = member.run_key
    and activation.neuron = member.neuron
    and cell.preset = member.preset
join store.run as run on activation.run_key = run.run_key
group by all;
