-- audit_effect: what the facts of a neuron add up to, for the checks to look at.
-- One row per run × neuron that has facts.
--   run_id               the run
--   neuron               the neuron
--   pairs                rows
--   position_hash        sum of the hashes of its positions: differs where one is missing or twice
--   null_values          activations and delta_loss that are NULL
--   effect_values        values of the effects that were only stored on request
--   least_activation     smallest activation
--   greatest_activation  largest activation; NaN where there is a NaN
--   least_delta          smallest delta_loss
--   greatest_delta       largest delta_loss; NaN where there is a NaN
--   least_effect         smallest value of the effects on request; NULL where there are none
--   greatest_effect      largest of them; NaN where there is a NaN

create or replace view audit_effect as
select
    run_id,
    neuron,
    count(*) as pairs,
    sum(hash(position_id)) as position_hash,
    2 * count(*) - count(activation) - count(delta_loss) as null_values,
    count(direct_delta_loss) + count(delta_entropy) + count(delta_kl)
    + count(frozen_frequency_delta_loss) as effect_values,
    min(activation) as least_activation,
    max(activation) as greatest_activation,
    min(delta_loss) as least_delta,
    max(delta_loss) as greatest_delta,
    least(
        min(direct_delta_loss), min(delta_entropy), min(delta_kl), min(frozen_frequency_delta_loss)
    ) as least_effect,
    greatest(
        max(direct_delta_loss), max(delta_entropy), max(delta_kl), max(frozen_frequency_delta_loss)
    ) as greatest_effect
from fct_effect
group by run_id, neuron;
