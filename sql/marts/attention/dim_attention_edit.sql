-- dim_attention_edit: what was done to attention, or beside it as a control.
-- One row per run × head_ablation × edit.
--   run_id           the run
--   head_ablation    what replaced a head's output: zero, mean or uniform
--   edit             number of the edit, from 1
--   kind             head; layer, all heads of it; norm and feed_forward, controls: a random share
--                    as large as one head's of the attention; patch_head and patch_layer: replaced
--                    by another window's outputs
--   attention_layer  layer of the attention, from 0
--   head             index of the head, from 0; NULL if the edit is not about one head
--   draw             which of a control's random shares, from 1
--   feeds_neurons    whether the edited module has a path to the run's neurons; without one, every
--                    activation changes by exactly 0
--   largest_change   largest change of any activation at any sampled position
--
-- An edit acts at every position of a window.

create or replace view dim_attention_edit as
select
    run.run_id,
    stored.head_ablation,
    stored.edit,
    stored.kind,
    stored.attention_layer,
    stored.head,
    stored.draw,
    stored.feeds_neurons,
    stored.largest_change
from store.dim_attention_edit as stored
join store.run as run using (run_key);
