-- How a neuron's effect comes about, from the further effects that were asked for. Runs that are
-- there already get theirs when the schema is up to date, as every mart that they lack.
create table store.neuron_mediation (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    neuron usmallint not null,
    direct_share double,
    frequency_mediation double,
    mean_direct_delta_loss double,
    mean_delta_entropy double,
    mean_delta_kl double,
    reason varchar
);
