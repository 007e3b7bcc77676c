-- The distribution of influence: the power law with its 95 % interval over windows, and the decision on the plateau.
-- Where kappa is NULL there is no power law; power_law_fit.reason says why.
select
    run.model,
    run.revision,
    run.corpus,
    decision.token_group,
    fit.positions,
    printf('%.2f [%.2f, %.2f]', law.kappa, decision.kappa_low, decision.kappa_high) as kappa,
    printf('%.2f', law.straight_share) as straight,
    law.first_rank || '–' || law.last_rank as ranks,
    round(auto.share_within_0_1, 3) as within_0_1,
    auto.neurons_above_0_5 as above_0_5,
    decision.decision as plateau,
    printf('%.4f', decision.p_value) as p,
    printf('%.2f', decision.power) as power,
    if(
        decision.break_determined,
        decision.break_rank || ' [' || decision.break_low || ', ' || decision.break_high || ']',
        'not determined'
    ) as head_rank,
    if(
        decision.break_determined,
        printf('%.2f [%.2f, %.2f]', decision.step, decision.step_low, decision.step_high),
        'not determined'
    ) as step,
    printf('%.2f [%.2f, %.2f]', decision.head_slope, decision.head_slope_low, decision.head_slope_high) as head_slope,
    decision.head,
    printf('%.1f, p %.3f', decision.slope_break_log_rank, decision.slope_break_p_value) as slope_break
from regime_decision as decision
join dim_run as run using (run_id)
join power_law_fit as law using (run_id, preset, token_group)
join regime_fit as auto using (run_id, preset, token_group)
join (
    select run_id, preset, token_group, any_value(positions) as positions from neuron_influence group by all
) as fit using (run_id, preset, token_group)
where decision.preset = 'es' and auto.rank_window = 'auto'
order by run.created_at, decision.token_group desc
