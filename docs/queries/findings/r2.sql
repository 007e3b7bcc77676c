-- NC §3: the power law of common tokens has R² 0.94. Holds where the interval's upper end reaches 0.94.
select
    fit.run_id,
    fit.preset,
    if(fit.kappa is null, 'no power law', printf('%.3f [%.3f, %.3f]', fit.r2, interval.low, interval.high)) as measured,
    case
        when fit.kappa is null or interval.high is null then 'undecided'
        when interval.high >= 0.94 then 'holds'
        else 'contradicted'
    end as verdict
from power_law_fit as fit
left join influence_interval as interval
    on
        fit.run_id = interval.run_id and fit.preset = interval.preset and fit.token_group = interval.token_group
        and interval.quantity = 'r2'
where fit.token_group = 'common'
