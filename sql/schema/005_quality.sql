-- What the checks of a run found, by whoever looked last: publishing, or the command `check`.
create table store.quality_result (
    run_key usmallint not null,
    suite varchar not null,
    relation varchar not null,
    expectation varchar not null,
    observed double not null,
    least double,
    most double,
    is_integrity boolean not null,
    success boolean not null,
    checked_by varchar not null,
    checked_at timestamp not null
);
