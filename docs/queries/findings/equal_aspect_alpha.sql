-- Beyond the papers: Hill's α on sub-matrices of one shape (FARMS), which groups and whole layers can be compared by.
select
    run_id,
    preset,
    string_agg(
        printf('%s %.2f', group_name, equal_aspect_alpha), '; ' order by group_name
    ) as measured,
    'measured' as verdict
from weight_spectrum
where
    matrix = 'w_out' and not standardised and rule = 'fix_finger' and draw = 0 and token_group = 'rare'
    and group_name in ('plateau', 'boost', 'suppress', 'layer') and equal_aspect_alpha is not null
group by run_id, preset
