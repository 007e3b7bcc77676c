-- Runs whose facts are kept as Parquet beside the warehouse.

-- Where its facts are: `native` (store.fct_effect) or `parquet` (files beside the warehouse).
alter table store.run add column store varchar default 'native';

-- The files of those runs. A file that is not listed here is of no run.
create table store.fact_file (
    run_key usmallint not null,
    path varchar not null,
    first_neuron usmallint not null,
    last_neuron usmallint not null,
    rows ubigint not null,
    bytes ubigint not null,
    sha256 varchar not null,
    footer_sha256 varchar not null
);
