-- published_value: what the papers print, number by number.
-- One row per paper × place × model × group_name × quantity.
--   paper       ES, DS, NC
--   place       section, table or appendix
--   model       NULL: stated for all models
--   group_name  neurons or tokens it is about; a pair of groups is spelled `boost_random`; NULL:
--               none
--   quantity    what is printed
--   relation    `=`, `<`, `>`, `≤`, `≈`: how the paper states it
--   value       the value, or the lower end of a printed range
--   value_to    upper end of a printed range, else NULL
--   plus_minus  as printed; the papers do not say what kind of error it is
--   unit        unit of the value
--   kind        `result`, `setting` of the method, or `claim` about what a value means
--   note        what to know about it

create or replace view published_value as
select
    paper,
    place,
    model,
    group_name,
    quantity,
    relation,
    value,
    value_to,
    plus_minus,
    unit,
    kind,
    note
from store.published_value;
