-- Beyond the papers: by layer, the decision on the rare curve and how many neurons are specific to rare tokens. One row
-- under the run of the deepest layer.
select
    last_run_id as run_id,
    preset,
    string_agg(
        printf('layer %d: %s, %d of %d', layer, coalesce(decision, 'not decided'), coalesce(specific_to_rare, 0), neurons),
        '; ' order by layer
    ) as measured,
    'measured' as verdict
from layer_profile
where token_group = 'rare' and edit_scope = 'window'
group by last_run_id, preset
