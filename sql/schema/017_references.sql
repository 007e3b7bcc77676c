-- What replaced each neuron's activation, for runs with other references than the mean, and the
-- first-order estimate of an effect. In runs that are there the reference was the mean or 0.
alter table store.dim_neuron add column reference_activation double;
alter table store.dim_neuron add column reference_error double;
alter table store.dim_neuron add column reference_is_outside boolean;
alter table store.fct_effect add column attributed_delta_loss float;

update store.dim_neuron as neuron
set reference_activation = if(run.ablation = 'zero', 0, neuron.mean_activation)
from store.run as run
where neuron.run_key = run.run_key;
