-- fct_attention_effect: what an edit does to the loss at one position.
-- One row per run × head_ablation × edit × position of the subsample.
--   run_id         the run
--   head_ablation  what replaced a head's output: zero, mean or uniform
--   edit           see dim_attention_edit
--   position_id    the position
--   delta_loss     loss with the edit − loss without, nats
--
-- The edit acts at every position of the window.

create or replace view fct_attention_effect as
select
    run.run_id,
    stored.head_ablation,
    stored.edit,
    stored.position_id,
    stored.delta_loss
from store.fct_attention_effect as stored
join store.run as run using (run_key);
