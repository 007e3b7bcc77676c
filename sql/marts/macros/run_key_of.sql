-- run_key_of: the key of the run whose id is given, or is the only one to start like this.
-- Macro run_key_of(run).
-- Example: select count(*) from dim_run where run_key = run_key_of('embedded-step6144')
--
-- An error if there is no such run, or more than one. Every macro about a run finds it by this one.
-- The ids are counted before anything is decided, so that even an empty warehouse gives an error.

create or replace macro run_key_of(run) as (
    select
        case
            when len(found.same) = 1 then found.same[1]
            when len(found.keys) = 1 then found.keys[1]
            when len(found.keys) > 1 then error(concat(
                '''', run::varchar, ''' is the start of ', len(found.keys), ' runs: ',
                some_of(found.ids), '. Give more of the id.'
            ))
            when len(found.all_ids) > 0 then error(concat(
                'There is no run ''', coalesce(run::varchar, 'NULL'), '''. The warehouse has ',
                some_of(found.all_ids), '.'
            ))
            else error(concat(
                'There is no run ''', coalesce(run::varchar, 'NULL'),
                ''': the warehouse is empty. Ingest a model first.'
            ))
        end
    from (
        select
            list(r.run_key) filter (r.run_id = run::varchar) as same,
            list(r.run_key) filter (starts_with(r.run_id, run::varchar)) as keys,
            list(r.run_id order by r.created_at, r.run_id) filter (
                starts_with(r.run_id, run::varchar)
            ) as ids,
            list(r.run_id order by r.created_at, r.run_id) as all_ids
        from store.run as r
    ) as found
);
