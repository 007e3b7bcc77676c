-- influence_interval: how far the numbers of a curve move with the text that was sampled.
-- One row per run × preset × token_group × quantity × neuron.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neurons
--   quantity     a column of power_law_fit or regime_fit; or, for a neuron, influence,
--                mean_delta_loss, rank, deviation
--   neuron       NULL: about the whole curve
--   estimate     the value on the sampled windows
--   low          2.5 % point over the samples
--   high         97.5 % point over the samples
--   determined   false: the interval spans (nearly) all possible values
--   windows      number of windows resampled
--   draws        samples of each bootstrap
--   reason       why a value is NULL; NULL if none is
--
-- Windows are resampled, because tokens of one window are not independent. If the interval of
-- mean_delta_loss holds 0, the neuron's sign is not settled (mixed).

create or replace view influence_interval as
select
    run.run_id,
    result.preset,
    result.token_group,
    run.layer,
    result.quantity,
    result.neuron,
    result.estimate,
    result.low,
    result.high,
    result.determined,
    result.windows,
    result.draws,
    result.reason
from store.influence_interval as result
join store.run as run using (run_key);
