-- How the curve of influence comes about over the checkpoints of a series.
create table store.emergence (
    run_key usmallint not null,
    training_step bigint,
    preset varchar,
    token_group varchar,
    group_name varchar,
    chosen_at varchar,
    quantity varchar not null,
    rank bigint,
    value double,
    low double,
    high double,
    reason varchar
);
