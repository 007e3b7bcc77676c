-- The line of a curve of influence has a head and a tail, and is fitted for other statistics and
-- signs too. What was computed with the former line is removed: `migrate` fits the new one from the
-- stored influence, `analyze` computes the rest anew.

drop table store.power_law_fit;
drop table store.regime_fit;
drop table store.regime_decision;
drop table store.influence_interval;
drop table store.threshold_sensitivity;
delete from store.neuron_deviation;
delete from store.emergence;
delete from store.analysis
where
    analysis in (
        'regimes', 'influence_interval', 'threshold_sensitivity', 'neuron_group', 'emergence'
    );

create table store.power_law_fit (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    statistic varchar not null,
    role varchar not null,
    rank_window varchar,
    kappa double,
    beta double,
    r2 double,
    tail double,
    head_rank bigint,
    step double,
    head_slope double,
    first_rank bigint,
    last_rank bigint,
    straight_share double,
    ranks bigint not null,
    reason varchar
);

create table store.regime_fit (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    rank_window varchar,
    head varchar,
    tail varchar,
    pieces bigint,
    kappa double,
    beta double,
    r2 double,
    first_rank bigint,
    last_rank bigint,
    share_within_0_1 double,
    neurons_above_0_5 bigint,
    head_kappa double,
    step double,
    tail_slope double,
    bic double,
    parameters bigint,
    ranks bigint,
    reason varchar
);

create table store.regime_decision (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    statistic varchar not null,
    role varchar not null,
    decision varchar,
    p_value double,
    scan_p_value double,
    jump_p_value double,
    power double,
    break_rank bigint,
    break_low bigint,
    break_high bigint,
    break_determined boolean,
    step double,
    step_low double,
    step_high double,
    head varchar,
    head_slope double,
    head_slope_low double,
    head_slope_high double,
    slope_ratio double,
    slope_ratio_low double,
    slope_ratio_high double,
    equal_slope_p_value double,
    kappa double,
    kappa_low double,
    kappa_high double,
    neurons_above_0_5 bigint,
    cliff_first bigint,
    cliff_last bigint,
    slope_break_log_rank double,
    slope_break_low double,
    slope_break_high double,
    slope_break_form varchar,
    slope_break_change double,
    slope_break_p_value double,
    slope_breaks_near_5 boolean,
    draws bigint,
    resamples bigint,
    ranks bigint,
    reason varchar
);

create table store.influence_interval (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    quantity varchar,
    neuron bigint,
    estimate double,
    low double,
    high double,
    determined boolean,
    windows bigint,
    draws bigint,
    reason varchar
);

create table store.plateau_difference (
    run_key usmallint not null,
    preset varchar not null,
    step double,
    step_low double,
    step_high double,
    size bigint,
    size_low double,
    size_high double,
    determined boolean,
    kappa double,
    kappa_low double,
    kappa_high double,
    first bigint,
    shared bigint,
    windows bigint,
    draws bigint,
    reason varchar
);

create table store.threshold_sensitivity (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    percentile double,
    positions bigint,
    distinct_threshold boolean,
    same_as_percentile double,
    kappa double,
    kappa_low double,
    kappa_high double,
    beta double,
    r2 double,
    first_rank bigint,
    last_rank bigint,
    straight_share double,
    share_within_0_1 double,
    neurons_above_0_5 bigint,
    decision varchar,
    p_value double,
    power double,
    break_rank bigint,
    break_low bigint,
    break_high bigint,
    break_determined boolean,
    step double,
    step_low double,
    step_high double,
    head varchar,
    head_slope double,
    top_overlap double,
    rank_correlation double,
    ranks bigint,
    reason varchar
);
