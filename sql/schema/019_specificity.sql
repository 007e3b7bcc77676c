-- Which neurons matter more for rare tokens than their influence and the tokens' loss explain, and
-- which rankings of neurons are the same: within a run, and between runs of one layer.
create table store.neuron_specificity (
    run_key usmallint not null,
    preset varchar not null,
    matching varchar not null,
    neuron bigint,
    ratio double,
    ratio_low double,
    ratio_high double,
    p_value double,
    adjusted_p_value double,
    detectable_ratio double,
    specific_to varchar,
    rare_positions bigint,
    common_positions bigint,
    permuted_positions bigint,
    windows bigint,
    draws bigint,
    permutations bigint,
    reason varchar
);

create table store.ranking_overlap (
    run_key usmallint not null,
    preset varchar,
    token_group varchar,
    ranking varchar not null,
    other_run_id varchar,
    other_preset varchar,
    other_token_group varchar,
    other_ranking varchar not null,
    rank_correlation double,
    rank_correlation_low double,
    rank_correlation_high double,
    shared_10 bigint,
    shared_10_low double,
    shared_10_high double,
    shared_50 bigint,
    shared_50_low double,
    shared_50_high double,
    expected_10 double,
    p_10 double,
    expected_50 double,
    p_50 double,
    neurons bigint,
    windows bigint,
    draws bigint,
    reason varchar
);

create table store.ranking_overlap_across (
    run_key usmallint not null,
    preset varchar,
    token_group varchar,
    ranking varchar not null,
    other_run_id varchar,
    other_preset varchar,
    other_token_group varchar,
    other_ranking varchar not null,
    rank_correlation double,
    rank_correlation_low double,
    rank_correlation_high double,
    shared_10 bigint,
    shared_10_low double,
    shared_10_high double,
    shared_50 bigint,
    shared_50_low double,
    shared_50_high double,
    expected_10 double,
    p_10 double,
    expected_50 double,
    p_50 double,
    neurons bigint,
    windows bigint,
    draws bigint,
    reason varchar
);

-- Which neurons of two runs on the same positions do the same, filled by `compare`.
create table store.neuron_match (
    run_key usmallint not null,
    other_run_id varchar not null,
    neuron bigint,
    other_neuron bigint,
    correlation double,
    correlation_low double,
    correlation_high double,
    chance_correlation double,
    is_mutual boolean,
    positions bigint,
    windows bigint,
    draws bigint,
    reason varchar
);

create table store.plateau_match (
    run_key usmallint not null,
    other_run_id varchar not null,
    preset varchar,
    token_group varchar,
    first bigint,
    other_first bigint,
    matched bigint,
    expected double,
    p_value double,
    head_correlation double,
    layer_correlation double,
    chance_correlation double,
    reason varchar
);
