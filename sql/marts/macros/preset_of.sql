-- preset_of: the name of a preset, checked.
-- Macro preset_of(name).
-- Example: select preset_of('es')
--
-- An error if there is no such preset. Every macro about a preset takes its name through this one.

create or replace macro preset_of(name) as one_of(
    name, (select list(p.preset) from store.preset as p), 'preset'
);
