-- dim_neuron: the neurons of a run's layer.
-- One row per run × neuron.
--   run_id                 the run
--   layer                  layer of the neuron, counted from 0
--   neuron                 its index in the layer, from 0
--   mean_activation        mean over the run's positions
--   reference_activation   what replaced its activation: the mean in a mean ablation; NULL where it
--                          is another position's (resample)
--   reference_error        in an optimal ablation the most by which the mean loss with this
--                          reference may exceed its minimum, nats; NULL in others
--   reference_is_outside   in an optimal ablation whether the reference lies far outside all of the
--                          neuron's activations; NULL in others
--   w_out_norm             length of its row of the output projection
--   null_space_share       share of that row in the least singular directions of the unembedding
--   logit_variance         variance over the vocabulary of its effect on the logits
--   frequency_correlation  correlation of that effect with log unigram frequency; NULL if undefined

create or replace view dim_neuron as
select
    run.run_id,
    run.layer,
    neuron.neuron,
    neuron.mean_activation,
    neuron.reference_activation,
    neuron.reference_error,
    neuron.reference_is_outside,
    neuron.w_out_norm,
    neuron.null_space_share,
    neuron.logit_variance,
    neuron.frequency_correlation
from store.dim_neuron as neuron
join store.run as run using (run_key);
