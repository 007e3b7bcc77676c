-- neuron_match: the partner of each neuron in another run on the same positions.
-- One row per run × other run × neuron.
--   run_id              the run
--   other_run_id        a run on the same positions of the same text
--   layer               layer of the neuron
--   neuron              its index in the layer; NULL in the single row of two runs that cannot be
--                       matched
--   other_layer         layer of the other run
--   other_neuron        its partner: the neuron of the other run whose activations correlate most
--                       with its own, whatever the sign; ties to the lower index
--   correlation         Pearson's, of the two neurons' activations over the positions
--   correlation_low     lower end of its 95 % interval over windows, the partner held fixed
--   correlation_high    upper end of the same
--   chance_correlation  the largest |correlation| with any neuron of the other run where its text
--                       is rotated by whole windows; mean over the rotations
--   is_mutual           whether the neuron is its partner's partner
--   positions           number of positions
--   windows             number of windows resampled
--   draws               bootstrap samples
--   reason              why a value is NULL; NULL if none is
--
-- Filled by `compare`, both ways, for the runs it is given.

create or replace view neuron_match as
select
    run.run_id,
    found.other_run_id,
    run.layer,
    found.neuron,
    other.layer as other_layer,
    found.other_neuron,
    found.correlation,
    found.correlation_low,
    found.correlation_high,
    found.chance_correlation,
    found.is_mutual,
    found.positions,
    found.windows,
    found.draws,
    found.reason
from store.neuron_match as found
join store.run as run using (run_key)
join store.run as other on found.other_run_id = other.run_id and other.status = 'published';
