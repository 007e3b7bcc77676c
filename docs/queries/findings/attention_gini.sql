-- NC §3: attention is as concentrated at rare as at common targets (Gini 0.34 and 0.32, p 0.43).
-- Contradicted where the permutation test within heads has p < 0.05. A large p proves no equality.
select
    run_id,
    preset,
    printf('%.3f against %.3f, p %.3f', gini, common_gini, gini_p_value) as measured,
    case
        when gini_p_value is null then 'undecided'
        when gini_p_value < 0.05 then 'contradicted'
        else 'not contradicted'
    end as verdict
from attention_routing
where attention_layer is null and head is null
