-- preset: what rare and common mean.
-- One row per preset.
--   preset        its name
--   in_words      which tokens are rare, in words
--   percentile    the line: rare below it, common at or above it; NULL: no line, rare tokens are
--                 matched with common ones (see position_context)
--   occurrences   the line is drawn by occurrence percentile, not by type percentile
--   words         only words are rare
--   elbow         tokens at the elbow of the frequency curve are in a group too
--   strict        common tokens lie above the line: one exactly on it is in neither group
--   rare_below    frequency below which tokens are rare; NULL: no bound
--   common_above  frequency above which tokens are common; NULL: no bound
--   least_source  tokens that the frequency source must have; NULL: any number
--   paper         source of the definition
--
-- The columns percentile to strict are the parameters of group_where and influence_where that draw
-- the same line. `store.preset` shows the rows of common/presets.py.

create or replace view preset as
select
    preset,
    in_words,
    percentile,
    occurrences,
    words,
    elbow,
    strict,
    rare_below,
    common_above,
    least_source,
    paper
from store.preset;
