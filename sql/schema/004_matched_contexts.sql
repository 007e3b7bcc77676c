-- Runs whose positions were searched for: matched contexts of rare and common tokens.

-- What the positions of a run are: `sample` or `nc-matched`.
alter table store.run add column contexts varchar default 'sample';

create table store.position_context (
    run_key usmallint not null,
    position_id uinteger not null,
    pair_id uinteger not null,
    context_id uinteger not null,
    token_group varchar not null,
    part_of_speech varchar not null,
    sentence_place varchar not null,
    is_whole_word boolean not null,
    syntactic_role varchar
);

-- Which of its pair's tokens a cell is about; NULL in a run of sampled positions.
alter table store.effect_cell add column matched_group varchar;
