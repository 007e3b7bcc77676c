-- NC §3: 15 to 20 neurons have δ > 0.5 for rare tokens. Holds where the interval reaches into 15 to 20.
select
    fit.run_id,
    fit.preset,
    if(
        fit.kappa is null, 'no power law',
        printf('%d [%.0f, %.0f]', auto.neurons_above_0_5, interval.low, interval.high)
    ) as measured,
    case
        when fit.kappa is null or interval.high is null then 'undecided'
        when interval.low <= 20 and interval.high >= 15 then 'holds'
        else 'contradicted'
    end as verdict
from power_law_fit as fit
join regime_fit as auto
    on
        fit.run_id = auto.run_id and fit.preset = auto.preset and fit.token_group = auto.token_group
        and auto.rank_window = 'auto'
left join influence_interval as interval
    on
        fit.run_id = interval.run_id and fit.preset = interval.preset and fit.token_group = interval.token_group
        and interval.quantity = 'neurons_above_0_5'
where fit.token_group = 'rare'
