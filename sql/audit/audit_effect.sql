-- audit_effect: what the facts of a neuron add up to, for the checks.
-- One row per run × neuron that has facts.
--   run_id               the run
--   neuron               the neuron
--   pairs                rows
--   position_hash        sum of the hashes of its positions: differs if one is missing or repeated
--   null_values          activations and delta_loss that are NULL
--   effect_values        values of the effects that are stored only on request
--   least_activation     smallest activation
--   greatest_activation  largest activation; NaN if there is a NaN
--   least_delta          smallest delta_loss
--   greatest_delta       largest delta_loss; NaN if there is a NaN
--   least_effect         smallest value of the effects on request; NULL if there are none
--   greatest_effect      largest of them; NaN if there is a NaN

-- The effects on request are every column of fct_effect that is not named here.

create or replace view audit_effect as
with counted as (
    select
        run_id,
        neuron,
        count(*) as pairs,
        sum(hash(position_id)) as position_hash,
        2 * count(*) - count(activation) - count(delta_loss) as null_values,
        min(activation) as least_activation,
        max(activation) as greatest_activation,
        min(delta_loss) as least_delta,
        max(delta_loss) as greatest_delta,
        count(columns(* exclude (run_id, layer, neuron, position_id, activation, delta_loss)))
            as "values of \0",
        min(columns(* exclude (run_id, layer, neuron, position_id, activation, delta_loss)))
            as "least of \0",
        max(columns(* exclude (run_id, layer, neuron, position_id, activation, delta_loss)))
            as "greatest of \0"
    from fct_effect
    group by run_id, neuron
)

select
    run_id,
    neuron,
    pairs,
    position_hash,
    null_values,
    list_sum([*columns('^values of ')])::bigint as effect_values,
    least_activation,
    greatest_activation,
    least_delta,
    greatest_delta,
    least(*columns('^least of ')) as least_effect,
    greatest(*columns('^greatest of ')) as greatest_effect
from counted;
