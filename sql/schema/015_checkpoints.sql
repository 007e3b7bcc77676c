-- What a checkpoint's name says of its place in training, whose twin it is, and two more ends that
-- a run can come to: `twin` and `failed`. A check cannot be altered, so the table is made anew.
--
-- The columns training_* of the runs that are there are filled when the warehouse is brought up to
-- date, from their revision, by the rule that new runs get them by (common/checkpoint_names.py).
create temporary table former_run as
from store.run;

drop table store.run;

create table store.run (
    run_key usmallint primary key,
    run_id varchar not null unique,
    model varchar not null,
    revision varchar not null,
    layer usmallint,
    status varchar not null
    check (status in ('running', 'published', 'rejected', 'missing', 'failed', 'twin')),
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
    source_key usmallint,
    contexts varchar default 'sample',
    store varchar default 'native',
    facts json,
    training_stage usmallint,
    training_step bigint,
    training_tokens bigint,
    training_branch varchar,
    twin_of varchar,
    quantisation varchar
);

insert into store.run by name
from former_run
order by run_key;

drop table former_run;
