-- fact_file: the Parquet files that hold the facts of runs in the Parquet store.
-- One row per run × block of neurons.
--   run_id        the run
--   first_neuron  first neuron whose facts are in the file
--   last_neuron   last neuron whose facts are in the file
--   path          its path within the folder WAREHOUSE.facts next to the warehouse
--   rows          facts in it
--   bytes         its size
--   sha256        SHA-256 of its bytes, hex
--
-- Other engines should read these files: a file in that folder that is not listed here belongs to
-- no run.

create or replace view fact_file as
select
    run.run_id,
    file.first_neuron,
    file.last_neuron,
    file.path,
    file.rows,
    file.bytes,
    file.sha256
from store.fact_file as file
join store.run as run using (run_key);
