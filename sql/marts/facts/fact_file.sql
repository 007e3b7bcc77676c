-- fact_file: the Parquet files that hold the facts of runs of the Parquet store.
-- One row per run × block of neurons.
--   run_id        the run
--   first_neuron  first neuron whose facts are in the file
--   last_neuron   last one
--   path          of the file, within the folder WAREHOUSE.facts beside the warehouse
--   rows          facts in it
--   bytes         its size
--   sha256        of its bytes, hex
--
-- What other engines are to read: a file in that folder that is not listed here is of no run.

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
