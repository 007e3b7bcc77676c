-- NC §3, table 2: no single head drives the plateau's neurons: the head with the largest impact is as large for random
-- groups. Contradicted where p < 0.05.
select
    run_id,
    preset,
    string_agg(
        printf('%s: its head holds %.1f %% against %.1f ± %.1f, p %.3f', group_name, 100 * head_share,
            100 * random_share, 100 * random_share_sd, share_p_value),
        '; ' order by group_name
    ) as measured,
    case
        when count(share_p_value) = 0 then 'undecided'
        when bool_or(share_p_value < 0.05) then 'contradicted'
        else 'not contradicted'
    end as verdict
from head_ablation
where target = 'largest_head' and token_group = 'rare' and group_name in ('plateau', 'boost', 'suppress')
group by run_id, preset
