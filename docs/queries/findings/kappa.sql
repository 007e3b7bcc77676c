-- NC §3: κ = 1.84 ± 0.12 for common tokens. Holds where the interval over windows reaches into 1.72 to 1.96.
select
    run_id,
    preset,
    if(fit.kappa is null, 'no power law', printf('%.2f [%.2f, %.2f]', fit.kappa, kappa_low, kappa_high)) as measured,
    case
        when fit.kappa is null then 'undecided'
        when kappa_low <= 1.96 and kappa_high >= 1.72 then 'holds'
        else 'contradicted'
    end as verdict
from power_law_fit as fit
join regime_decision using (run_id, preset, token_group)
where token_group = 'common'
