-- Groups of neurons ablated at once: which they are, and what it does to the loss.

create table store.dim_group (
    run_key usmallint not null,
    group_name varchar not null,
    k uinteger not null,
    neurons usmallint[] not null,
    source varchar not null,
    structural_check_error double not null
);

-- Sorted by group, then position, within a run.
create table store.fct_group_effect (
    run_key usmallint not null,
    group_name varchar not null,
    position_id uinteger not null,
    delta_loss float not null using compression uncompressed
);
