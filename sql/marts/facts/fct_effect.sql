-- fct_effect: what ablating one neuron does to the loss at one position.
-- One row per run × neuron × position.
--   run_id                       the run
--   layer                        layer of the neuron
--   neuron                       its index in the layer
--   position_id                  the position
--   activation                   activation of the neuron at the position (input of the output
--                                projection)
--   delta_loss                   loss with the neuron ablated − loss without, nats
--   direct_delta_loss            the same with the final norm's scale frozen; NULL unless asked for
--   delta_entropy                change of the prediction's entropy, nats; NULL unless asked for
--   delta_kl                     change of KL(unigram ‖ prediction), nats; NULL unless asked for
--   frozen_frequency_delta_loss  delta_loss with the logits' part along log unigram frequency
--                                frozen; NULL unless asked for
--   attributed_delta_loss        its first-order estimate, (reference − activation) times the
--                                gradient of the loss, nats; NULL unless asked for
--
-- Reading part of a run is quick: rows are sorted, and a filter on run_id or neuron skips the rest.

-- Where runs have their facts as Parquet, `parquet_facts` puts a view over the files here.
create or replace view store.parquet_effect as
select
    *,
    null::varchar as run_id
from store.fct_effect
where false;

create or replace view store.effect as
select * from store.fct_effect
union all by name
select * exclude (run_id) from store.parquet_effect;

create or replace view fct_effect as
select
    run.run_id,
    run.layer,
    effect.* exclude (run_key)
from store.effect as effect
join store.run as run using (run_key);
