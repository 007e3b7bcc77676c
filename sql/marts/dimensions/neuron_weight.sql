-- neuron_weight: the weight vectors of a run's neurons.
-- One row per run × neuron.
--   run_id  the run
--   layer   layer of the neuron
--   neuron  its index in the layer
--   w_out   its row of the output projection, of the residual width
--   w_in    its row of the input projection, or of the gate's if the MLP is gated
--   w_up    its row of the up projection of a gated MLP; else NULL

create or replace view neuron_weight as
select
    run.run_id,
    run.layer,
    weight.neuron,
    weight.w_out,
    weight.w_in,
    weight.w_up
from store.neuron_weight as weight
join store.run as run using (run_key);
