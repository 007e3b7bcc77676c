-- Two more result tables that `analyze` fills: the local shape of the curves, and the spectra.

create table store.influence_slope (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    rank bigint,
    log_rank double,
    local_slope double,
    second_derivative double,
    reason varchar
);

create table store.spectral_density (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    matrix varchar,
    standardised boolean,
    group_name varchar,
    k bigint,
    draw bigint,
    bin bigint,
    log10_left double,
    log10_right double,
    eigenvalues bigint,
    density double,
    reason varchar
);
