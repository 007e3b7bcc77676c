-- Which neurons matter more for rare tokens than their influence and the tokens' loss explain.
create table store.neuron_specificity (
    run_key usmallint not null,
    preset varchar not null,
    matching varchar not null,
    neuron usmallint,
    ratio double,
    ratio_low double,
    ratio_high double,
    p_value double,
    adjusted_p_value double,
    specific_to varchar,
    rare_positions bigint,
    common_positions bigint,
    permuted_positions bigint,
    windows bigint,
    draws bigint,
    permutations bigint,
    reason varchar
);
