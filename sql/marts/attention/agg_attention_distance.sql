-- agg_attention_distance: where a head looks, summed over a cell.
-- One row per run × head_ablation × attention_layer × head × cell × distance.
--   run_id           the run
--   head_ablation    what replaced a head's output: zero, mean or uniform
--   attention_layer  layer of the attention, from 0
--   head             index of the head, from 0
--   cell             see dim_attention_cell
--   distance         tokens back; 0 is the position itself
--   weight_sum       attention weight on that token, summed over positions
--
-- The weights of a position sum to 1 over all distances.

create or replace view agg_attention_distance as
select
    run.run_id,
    stored.head_ablation,
    stored.attention_layer,
    stored.head,
    stored.cell,
    stored.distance,
    stored.weight_sum
from store.agg_attention_distance as stored
join store.run as run using (run_key);
