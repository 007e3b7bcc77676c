-- regime_decision_of: whether a curve of influence other than regime_decision's has a plateau.
-- Macro regime_decision_of(of_statistic, of_role).
-- Example: from regime_decision_of('mean_abs', 'all')
--   run_id                the run
--   preset                definition of rare and common (see position_group)
--   token_group           rare or common
--   layer                 layer of the neurons
--   statistic             mean_abs or abs_mean (see power_law_fit)
--   role                  all, boost or suppress (see power_law_fit)
--   decision              plateau present, absent or undecided; NULL if nothing can be decided
--   p_value               of a step at the head: min(1, 2 min(scan_p_value, jump_p_value))
--   scan_p_value          of the run of spacings that stands out most, corrected for the search
--   jump_p_value          of what a step explains beyond the best curve without one
--   power                 probability that 1 % of the neurons, raised by 0.5, would be found at
--                         p < 0.01
--   break_rank            b, last rank of the head: the plateau's size if there is one
--   break_low             lower end of its 95 % interval over windows of text
--   break_high            upper end of the same
--   break_determined      false: the interval spans (nearly) every rank at which a head may end
--   step                  s, height of the head above the power law at its end, log influence
--   step_low              lower end of its 95 % interval over windows
--   step_high             upper end of the same
--   head                  raised: as steep as the power law; shelf: flatter; steep: steeper
--   head_slope            κ + h, minus the head's slope
--   head_slope_low        lower end of its 95 % interval over windows
--   head_slope_high       upper end of the same
--   slope_ratio           mean spacing of the head over that of the power law
--   slope_ratio_low       lower end of its 95 % interval, neurons as independent draws
--   slope_ratio_high      upper end of the same
--   equal_slope_p_value   of the hypothesis that head and power law have the same slope
--   kappa                 κ of power_law_fit
--   kappa_low             lower end of its 95 % interval over windows
--   kappa_high            upper end of the same
--   neurons_above_0_5     neurons with δ > 0.5
--   cliff_first           last rank above the run of spacings that stands out most
--   cliff_last            first rank below it
--   slope_break_log_rank  where the slope itself breaks most (ES §4.1: near 5)
--   slope_break_low       lower end of its 95 % interval
--   slope_break_high      upper end of the same
--   slope_break_form      kink: the second derivative jumps; jump: the slope does
--   slope_break_change    size of the change there
--   slope_break_p_value   against a slope that changes smoothly
--   slope_breaks_near_5   p < 0.01 and 5 in the interval
--   draws                 samples of the null distribution
--   resamples             bootstrap samples of windows, for the intervals
--   ranks                 neurons with an influence above 0
--   reason                why undecided, or why a value is NULL; NULL if none is
--
-- of_statistic is mean_abs or abs_mean, of_role all, boost or suppress (see power_law_fit_of). Only
-- the curve of regime_decision is searched for a break of the slope.

create or replace macro regime_decision_of(of_statistic, of_role) as table
select
    run.run_id,
    decision.preset,
    decision.token_group,
    run.layer,
    decision.statistic,
    decision.role,
    decision.decision,
    decision.p_value,
    decision.scan_p_value,
    decision.jump_p_value,
    decision.power,
    decision.break_rank,
    decision.break_low,
    decision.break_high,
    decision.break_determined,
    decision.step,
    decision.step_low,
    decision.step_high,
    decision.head,
    decision.head_slope,
    decision.head_slope_low,
    decision.head_slope_high,
    decision.slope_ratio,
    decision.slope_ratio_low,
    decision.slope_ratio_high,
    decision.equal_slope_p_value,
    decision.kappa,
    decision.kappa_low,
    decision.kappa_high,
    decision.neurons_above_0_5,
    decision.cliff_first,
    decision.cliff_last,
    decision.slope_break_log_rank,
    decision.slope_break_low,
    decision.slope_break_high,
    decision.slope_break_form,
    decision.slope_break_change,
    decision.slope_break_p_value,
    decision.slope_breaks_near_5,
    decision.draws,
    decision.resamples,
    decision.ranks,
    decision.reason
from store.regime_decision as decision
join store.run as run using (run_key)
where
    decision.statistic = one_of(of_statistic, ['mean_abs', 'abs_mean'], 'statistic')
    and decision.role = one_of(of_role, ['all', 'boost', 'suppress'], 'role');
