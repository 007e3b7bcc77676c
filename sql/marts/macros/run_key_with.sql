-- run_key_with: the key of a run that has a neuron (see run_key_of).
-- Macro run_key_with(run, neuron_index).
-- Example: select count(*) from dim_run where run_key = run_key_with('embedded-step6144', 7)
--
-- An error if the run has no neuron of that index. Every macro about a neuron finds its run by this
-- one; the facts are still filtered by the index itself, which skips what is stored of others.

create or replace macro run_key_with(run, neuron_index) as (
    select
        case
            when coalesce(neuron_index between 0 and found.neurons - 1, false) then found.run_key
            when found.neurons is null then found.run_key
            else error(concat(
                found.run_id, ' has no neuron ', coalesce(neuron_index::varchar, 'NULL'),
                '. Its neurons are 0 to ', found.neurons - 1, '.'
            ))
        end
    from (
        select
            any_value(r.run_key) as run_key,
            any_value(r.run_id) as run_id,
            any_value(r.neurons)::bigint as neurons
        from store.run as r
        where r.run_key = run_key_of(run)
    ) as found
);
