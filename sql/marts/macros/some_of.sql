-- some_of: the first ten of a list of names, and how many more there are, for a message.
-- Macro some_of(names).
-- Example: select some_of(['es', 'nc', 'ds'])

create or replace macro some_of(names) as concat(
    array_to_string(names[:10], ', '),
    case when len(names) > 10 then concat(' and ', len(names) - 10, ' more') end
);
