-- neuron_token: the tokens whose logits a neuron moves most (logit lens).
-- One row per run × neuron × direction × rank.
--   run_id     the run
--   layer      layer of the neuron
--   neuron     its index in the layer
--   direction  up: a larger activation raises the logit; down: lowers it
--   rank       1 = moved most
--   token_id   the token
--   logit      change of the centred logit per unit of activation, before the final norm's scale

create or replace view neuron_token as
select
    run.run_id,
    run.layer,
    moved.neuron,
    moved.direction,
    moved.rank,
    moved.token_id,
    moved.logit
from store.neuron_token as moved
join store.run as run using (run_key);
