-- The distribution of influence: the power law with its 95 % interval over windows, and the decision on the plateau.
with interval as (
    select run_id, preset, token_group, quantity, estimate, low, high
    from influence_interval
    where neuron is null
)

select
    run.model,
    run.revision,
    run.corpus,
    decision.token_group,
    fit.positions,
    printf('%.2f [%.2f, %.2f]', law.kappa, kappa.low, kappa.high) as kappa,
    printf('%.3f', law.r2) as r2,
    law.first_rank || '–' || law.last_rank as ranks,
    round(auto.share_within_0_1, 3) as within_0_1,
    auto.neurons_above_0_5 as above_0_5,
    decision.decision as plateau,
    printf('%.3f', decision.p_value) as p,
    printf('%.2f', decision.power) as power,
    printf('%.2f [%.2f, %.2f]', decision.step, decision.step_low, decision.step_high) as step,
    decision.break_rank || ' [' || decision.break_low || ', ' || decision.break_high || ']' as break_rank,
    printf('%.2f [%.2f, %.2f]', decision.slope_ratio, decision.slope_ratio_low, decision.slope_ratio_high) as slope_ratio,
    printf('%.1f, p %.3f', decision.slope_break_log_rank, decision.slope_break_p_value) as slope_break
from regime_decision as decision
join dim_run as run using (run_id)
join power_law_fit as law using (run_id, preset, token_group)
join regime_fit as auto using (run_id, preset, token_group)
left join interval as kappa using (run_id, preset, token_group)
join (
    select run_id, preset, token_group, any_value(positions) as positions from neuron_influence group by all
) as fit using (run_id, preset, token_group)
where decision.preset = 'es' and auto.rank_window = 'auto' and (kappa.quantity = 'kappa' or kappa.quantity is null)
order by run.created_at, decision.token_group desc
