-- Holds the number until the schema that has it is merged.
select 1;
