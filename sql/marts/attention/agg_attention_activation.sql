-- agg_attention_activation: what an edit does to each neuron, summed over a cell.
-- One row per run × head_ablation × edit × cell × neuron.
--   run_id          the run
--   layer           layer of the neurons
--   head_ablation   what replaced a head's output: zero, mean or uniform
--   edit            see dim_attention_edit; 0 means unedited
--   cell            see dim_attention_cell
--   neuron          its index in the layer
--   activation_sum  for edit 0 the activation, for others its change, summed over positions
--
-- An edit without a path to the neurons has no rows; patches have rows only in the subsample's
-- cells.

create or replace view agg_attention_activation as
select
    run.run_id,
    run.layer,
    stored.head_ablation,
    stored.edit,
    stored.cell,
    stored.neuron,
    stored.activation_sum
from store.agg_attention_activation as stored
join store.run as run using (run_key);
