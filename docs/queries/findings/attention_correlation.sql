-- NC §3, DS §4.4: attention at rare and at common targets correlates by 0.89 ± 0.07, mean over heads.
-- Holds where the mean over heads is at least 0.82. Noise alone leaves self of a correlation of 1.
select
    run_id,
    preset,
    printf('%.2f ± %.2f over heads, self %.2f', correlation, correlation_sd, self_correlation) as measured,
    case
        when correlation is null then 'undecided'
        when correlation >= 0.82 then 'holds'
        else 'contradicted'
    end as verdict
from attention_routing
where attention_layer is null and head is null
