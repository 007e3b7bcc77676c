-- dim_group: groups of neurons that were ablated at once (`ingest --group`).
-- One row per run × group_name.
--   run_id                  the run
--   layer                   layer of the neurons
--   group_name              its name in the file, or PRESET:NAME for a group of neuron_group
--   k                       neurons in the group
--   neurons                 their indices in the layer, ascending
--   source                  the file, or the rows of neuron_group, it was read from
--   structural_check_error  largest error of its effects, at the positions compared with the hooked
--                           model, in units of its tolerance

create or replace view dim_group as
select
    run.run_id,
    run.layer,
    stored.group_name,
    stored.k,
    stored.neurons,
    stored.source,
    stored.structural_check_error
from store.dim_group as stored
join store.run as run using (run_key);
