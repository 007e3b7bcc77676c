-- influence_interval: how far the numbers of a curve move with the text that was sampled.
-- One row per run × preset × token_group × quantity × neuron.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neurons
--   quantity     a column of power_law_fit or regime_fit; or influence, mean_delta_loss, rank,
--                deviation of a neuron
--   neuron       NULL where it is about the whole curve
--   estimate     the value on the windows in hand
--   low          2.5 % point over the samples
--   high         97.5 % point over the samples
--   determined   false: the interval spans (nearly) all values that are possible
--   windows      number of windows resampled
--   draws        samples of each bootstrap
--   reason       why a value is NULL; NULL where there is nothing to say
--
-- Bootstrap over windows, because tokens of one window are not independent. Where the interval of
-- mean_delta_loss holds 0, the sign of a neuron is not settled (mixed).

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
