-- dim_position: the positions at which every neuron was ablated.
-- One row per run × position.
--   run_id           the run
--   position_id      0 … T − 1, in reading order
--   window_id        its window: position_id // window_length
--   window_offset    place in the window, from 0
--   document_id      document of the target; NULL if the target is a separator
--   input_token_id   token at the position
--   target_token_id  token that follows it, whose loss is measured
--   loss             cross-entropy of the target without ablation, nats
--   entropy          entropy of the model's prediction without ablation, nats

create or replace view dim_position as
select
    run.run_id,
    position.position_id,
    position.window_id,
    position.window_offset,
    position.document_id,
    position.input_token_id,
    position.target_token_id,
    position.loss,
    position.entropy
from store.dim_position as position
join store.run as run using (run_key);
