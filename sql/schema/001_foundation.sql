-- The stored tables. Queries read the public views of sql/marts; these are the warehouse's own.
--
-- Facts and everything counted per run carry the small integer run_key: it groups 1.8 times as fast
-- as a text, and a filter on it skips the row groups of the other runs. Tokens and frequencies are
-- stored once, however many runs share them.

create schema store;

create table store.migration (
    number usmallint primary key,
    name varchar not null,
    applied_at timestamp not null
);

-- One row: which version of sql/marts and sql/audit the views and macros here were made from.
create table store.catalogue (digest varchar not null);

create table store.tokenizer (
    tokenizer_key usmallint primary key,
    tokenizer_id varchar not null unique
);

create table store.frequency_source (
    source_key usmallint primary key,
    tokenizer_key usmallint not null,
    frequency_source_id varchar not null,
    description varchar not null,
    unique (tokenizer_key, frequency_source_id)
);

create table store.run (
    run_key usmallint primary key,
    run_id varchar not null unique,
    model varchar not null,
    revision varchar not null,
    layer usmallint,
    status varchar not null
    check (status in ('running', 'published', 'rejected', 'missing')),
    status_reason varchar,
    positions uinteger,
    neurons uinteger,
    window_length uinteger,
    tokenizer_id varchar,
    frequency_source_id varchar,
    frequency_source varchar,
    corpus varchar,
    corpus_hash varchar,
    model_hash varchar,
    ablation varchar,
    seed bigint,
    dtype varchar,
    device varchar,
    tolerance double,
    effects varchar[],
    separator_token_id uinteger,
    exact_pairs ubigint,
    self_check_pairs ubigint,
    self_check_error double,
    structural_check_error double,
    seconds double,
    stage_seconds json,
    warnings varchar[],
    identity json,
    options json,
    packages json,
    code_version varchar,
    created_at timestamp,
    published_at timestamp,
    process varchar,
    parts_digest varchar,
    tokenizer_key usmallint,
    source_key usmallint
);

create table store.dim_document (
    run_key usmallint not null,
    document_id uinteger not null,
    document_hash varchar not null,
    domain varchar not null,
    tokens uinteger not null,
    first_position uinteger
);

create table store.dim_token (
    tokenizer_key usmallint not null,
    token_id uinteger not null,
    text varchar not null,
    is_word boolean not null,
    starts_word boolean not null,
    is_special boolean not null
);

create table store.token_frequency (
    source_key usmallint not null,
    token_id uinteger not null,
    count ubigint not null,
    frequency double,
    percentile double,
    occurrence_percentile double,
    rank uinteger,
    is_elbow boolean not null
);

create table store.dim_position (
    run_key usmallint not null,
    position_id uinteger not null,
    window_id uinteger not null,
    window_offset uinteger not null,
    document_id uinteger,
    input_token_id uinteger not null,
    target_token_id uinteger not null,
    loss float not null,
    entropy float not null
);

create table store.dim_neuron (
    run_key usmallint not null,
    neuron usmallint not null,
    mean_activation double not null,
    w_out_norm float not null,
    null_space_share float,
    logit_variance float,
    frequency_correlation float
);

create table store.neuron_weight (
    run_key usmallint not null,
    neuron usmallint not null,
    w_out float[] not null,
    w_in float[],
    w_up float[]
);

create table store.neuron_token (
    run_key usmallint not null,
    neuron usmallint not null,
    direction varchar not null,
    rank uinteger not null,
    token_id uinteger not null,
    logit float not null
);

-- Sorted by neuron, then position, within a run. Looking for a compression of the measured floats
-- costs a third of the load and gains 2 % of the size.
create table store.fct_effect (
    run_key usmallint not null,
    neuron usmallint not null,
    position_id uinteger not null,
    activation float not null using compression uncompressed,
    delta_loss float not null using compression uncompressed,
    direct_delta_loss float using compression uncompressed,
    delta_entropy float using compression uncompressed,
    delta_kl float using compression uncompressed,
    frozen_frequency_delta_loss float using compression uncompressed
);

create table store.position_group (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    position_id uinteger not null
);

-- The cells of agg_effect: which positions of a window count as alike. Shared by all neurons.
create table store.effect_cell (
    run_key usmallint not null,
    cell uinteger not null,
    window_id uinteger not null,
    percentile_bucket float not null,
    occurrence_bucket float not null,
    is_word boolean not null,
    is_elbow boolean not null,
    positions uinteger not null
);

-- Sums in units of 2^-40 nats: whole numbers add up to the same total in any order.
create table store.agg_effect (
    run_key usmallint not null,
    neuron usmallint not null,
    cell uinteger not null,
    abs_delta_units bigint not null,
    delta_units bigint not null,
    square_sum float not null
);

create table store.neuron_influence (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    neuron usmallint not null,
    rank uinteger not null,
    influence double not null,
    mean_delta_loss double not null,
    abs_mean_delta_loss double not null,
    abs_mean_rank uinteger not null,
    positions uinteger not null,
    role varchar
);

create table store.power_law_fit (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    rank_window varchar not null,
    kappa double,
    beta double,
    r2 double,
    first_rank uinteger,
    last_rank uinteger,
    ranks uinteger not null,
    reason varchar
);

create table store.neuron_deviation (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    neuron usmallint not null,
    rank uinteger not null,
    deviation double,
    local_slope double,
    regime varchar
);
