-- one_of: a value if it is one of those allowed, else an error that lists them.
-- Macro one_of(given, allowed, what).
-- Example: select one_of('abs_mean', ['mean_abs', 'abs_mean'], 'statistic')
--
-- An aggregate, so that the check is made even where no row is left to compare the value with.

create or replace macro one_of(given, allowed, what) as (
    select
        case
            when list_contains(found.names, given::varchar) then given
            else error(concat(
                'There is no ', what, ' ''', coalesce(given::varchar, 'NULL'), '''. It is one of ',
                array_to_string(found.names, ', '), '.'
            ))
        end
    from (select list(a.name) as names from (select unnest(allowed) as name) as a) as found
);
