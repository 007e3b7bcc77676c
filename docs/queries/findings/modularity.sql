-- NC §3, table 1: plateau neurons form no modules. Contradicted where a group's signed modularity (Louvain) is larger
-- than that of random groups; p after Holm within its family (group_test). That none is larger proves no equality.
select
    run_id,
    preset,
    string_agg(
        printf('%s %.3f against %.3f, p %.3f', group_name, round(value, 3) + 0, round(reference_mean, 3) + 0, p_holm), '; ' order by group_name
    ) as measured,
    case
        when count(p_holm) = 0 then 'undecided'
        when bool_or(p_holm < 0.05 and value > reference_mean) then 'contradicted'
        else 'not contradicted'
    end as verdict
from group_test
where
    test = 'control' and token_group = 'rare' and analysis = 'graph_modularity' and statistic = 'signed_modularity'
    and setting like '%method=louvain%' and group_name in ('boost', 'excitatory', 'inhibitory', 'plateau', 'suppress') and value is not null
group by run_id, preset
