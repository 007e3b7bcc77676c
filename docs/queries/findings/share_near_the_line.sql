-- NC §3: 95 % of the neurons lie within 0.1 of the line of common tokens. Holds where the interval reaches 95 %.
-- straight: the share of the ranks between head and tail alone, where the power law is meant to hold.
select
    fit.run_id,
    fit.preset,
    if(
        fit.kappa is null, 'no power law',
        printf('%.0f %% [%.0f, %.0f] of all; straight %.0f %%', 100 * auto.share_within_0_1, 100 * interval.low,
            100 * interval.high, 100 * fit.straight_share)
    ) as measured,
    case
        when fit.kappa is null or interval.high is null then 'undecided'
        when interval.high >= 0.95 then 'holds'
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
        and interval.quantity = 'share_within_0_1'
where fit.token_group = 'common'
