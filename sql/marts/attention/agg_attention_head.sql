-- agg_attention_head: how concentrated a head's attention is, summed over a cell.
-- One row per run × head_ablation × attention_layer × head × cell.
--   run_id           the run
--   head_ablation    what replaced a head's output: zero, mean or uniform
--   attention_layer  layer of the attention, from 0
--   head             index of the head, from 0
--   cell             see dim_attention_cell
--   gini_sum         sum over positions of the Gini coefficient of the weights on all visible
--                    positions
--   entropy_sum      sum over positions of the weights' entropy, nats
--   first_sum        sum over positions of the weight on the window's first token
--
-- Divide by the cell's number of positions.

create or replace view agg_attention_head as
select
    run.run_id,
    stored.head_ablation,
    stored.attention_layer,
    stored.head,
    stored.cell,
    stored.gini_sum,
    stored.entropy_sum,
    stored.first_sum
from store.agg_attention_head as stored
join store.run as run using (run_key);
