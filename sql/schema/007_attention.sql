-- Attention and what its heads do, added to a published run; and the analyses of it.

create table store.dim_attention (
    run_key usmallint not null,
    head_ablation varchar not null,
    layers usmallint[] not null,
    heads usmallint[] not null,
    loss_positions uinteger not null,
    windows_per_unit uinteger not null,
    structural_check_error double not null,
    seconds double not null,
    code_version varchar not null
);

create table store.dim_attention_edit (
    run_key usmallint not null,
    head_ablation varchar not null,
    edit usmallint not null,
    kind varchar not null,
    attention_layer usmallint not null,
    head usmallint,
    draw usmallint,
    feeds_neurons boolean not null,
    largest_change double not null
);

create table store.dim_attention_cell (
    run_key usmallint not null,
    head_ablation varchar not null,
    cell uinteger not null,
    preset varchar not null,
    token_group varchar not null,
    window_id uinteger not null,
    positions uinteger not null,
    has_loss boolean not null
);

create table store.agg_attention_head (
    run_key usmallint not null,
    head_ablation varchar not null,
    attention_layer usmallint not null,
    head usmallint not null,
    cell uinteger not null,
    gini_sum float not null,
    entropy_sum float not null,
    first_sum float not null
);

create table store.agg_attention_distance (
    run_key usmallint not null,
    head_ablation varchar not null,
    attention_layer usmallint not null,
    head usmallint not null,
    cell uinteger not null,
    distance uinteger not null,
    weight_sum float not null using compression uncompressed
);

-- In the order of units, edits and cells, within a run.
create table store.agg_attention_activation (
    run_key usmallint not null,
    head_ablation varchar not null,
    edit usmallint not null,
    cell uinteger not null,
    neuron usmallint not null,
    activation_sum float not null using compression uncompressed
);

create table store.fct_attention_effect (
    run_key usmallint not null,
    head_ablation varchar not null,
    edit usmallint not null,
    position_id uinteger not null,
    delta_loss float not null using compression uncompressed
);

create table store.attention_impact (
    run_key usmallint not null,
    head_ablation varchar not null,
    preset varchar not null,
    token_group varchar not null,
    edit usmallint not null,
    neuron usmallint not null,
    positions uinteger not null,
    mean_activation double not null,
    mean_change double not null
);

create table store.attention_routing (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    attention_layer bigint,
    head bigint,
    positions bigint,
    common_positions bigint,
    units bigint,
    correlation double,
    correlation_low double,
    correlation_high double,
    correlation_sd double,
    self_correlation double,
    gini double,
    common_gini double,
    gini_sd double,
    common_gini_sd double,
    gini_difference double,
    gini_low double,
    gini_high double,
    gini_p_value double,
    gini_p_holm double,
    profile_gini double,
    common_profile_gini double,
    entropy double,
    common_entropy double,
    first_share double,
    common_first_share double,
    mean_distance double,
    common_mean_distance double,
    reason varchar
);

create table store.head_ablation (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    head_ablation varchar,
    group_name varchar,
    k bigint,
    target varchar,
    attention_layer bigint,
    head bigint,
    draw bigint,
    positions bigint,
    units bigint,
    activation_change double,
    change_low double,
    change_high double,
    impact double,
    pooled_change double,
    effect_size double,
    p_value double,
    versus_common double,
    versus_common_low double,
    versus_common_high double,
    head_share double,
    random_share double,
    random_share_sd double,
    random_groups bigint,
    share_p_value double,
    share_p_holm double,
    loss_positions bigint,
    delta_loss double,
    delta_loss_low double,
    delta_loss_high double,
    reason varchar
);

create table store.activation_patching (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    group_name varchar,
    k bigint,
    target varchar,
    attention_layer bigint,
    head bigint,
    positions bigint,
    units bigint,
    activation_change double,
    change_low double,
    change_high double,
    impact double,
    pooled_change double,
    effect_size double,
    p_value double,
    versus_common double,
    versus_common_low double,
    versus_common_high double,
    loss_positions bigint,
    delta_loss double,
    delta_loss_low double,
    delta_loss_high double,
    reason varchar
);
