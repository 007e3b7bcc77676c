-- NC §3, DS §4.4: attention at rare and at common targets correlates by 0.89 ± 0.07, mean over heads.
-- Holds where the interval reaches into 0.82 to 0.96. Noise alone leaves self of a correlation of 1.
select
    run_id,
    preset,
    printf('%.2f [%.2f, %.2f], self %.2f', correlation, correlation_low, correlation_high, self_correlation) as measured,
    case
        when correlation is null then 'undecided'
        when correlation_low <= 0.96 and correlation_high >= 0.82 then 'holds'
        when correlation_low > 0.96 then 'holds: even more alike'
        else 'contradicted'
    end as verdict
from attention_routing
where attention_layer is null and head is null
