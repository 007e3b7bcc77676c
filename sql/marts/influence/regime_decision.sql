-- regime_decision: whether a curve of influence has a plateau: decided by parametric bootstrap.
-- One row per run × preset × token_group.
--   run_id                the run
--   preset                definition of rare and common (see position_group)
--   token_group           rare or common
--   layer                 layer of the neurons
--   decision              plateau present, absent or undecided; NULL where nothing can be decided
--   p_value               of a step in the head: parametric bootstrap of power law and tail without
--                         one
--   power                 probability that 1 % of the neurons, raised by 0.5, would be found at p <
--                         0.01
--   break_rank            last rank above the step: the plateau's size where it is present
--   break_low             lower end of its 95 % interval, by parametric bootstrap of the curve with
--                         the step
--   break_high            upper end of the same
--   step                  δ at the step, log influence, the neurons' standard errors allowed for
--   step_low              lower end of its 95 % interval
--   step_high             upper end of the same
--   head                  level or free, where present: by the test of equal slopes at 5 %
--   slope_ratio           slope of the head over slope of the power law
--   slope_ratio_low       lower end of its 95 % interval
--   slope_ratio_high      upper end of the same
--   equal_slope_p_value   of head and power law having one slope
--   hinge_p_value         of a head with another slope, against none
--   free_p_value          of a head with another slope and a step, against none
--   kappa                 of the power law, by likelihood of the spacings, the step left out
--   bend_rank             last rank of a head with another slope, where the curve needs one; NULL:
--                         none
--   bend_slope            its −slope
--   tail                  none, linear or loglog (see regime_fit)
--   tail_rank             last rank of the power law
--   tail_p_value          of the tail, against a pure power law
--   slope_break_log_rank  where the slope itself breaks most (ES §4.1: near 5)
--   slope_break_low       lower end of its 95 % interval
--   slope_break_high      upper end of the same
--   slope_break_form      kink: the second derivative jumps; jump: the slope does
--   slope_break_change    size of the change there
--   slope_break_p_value   against a slope that changes smoothly
--   slope_breaks_near_5   p < 0.01 and 5 in the interval
--   errors_known          whether the neurons' standard errors entered the bootstrap
--   draws                 samples of each bootstrap
--   ranks                 neurons with an influence above 0
--   reason                why a value is NULL; NULL where there is nothing to say
--
-- See docs/definitions.md, "Plateau decision". The null of a step is the power law with the tail
-- and the bend of the head that the curve needs.

create or replace view regime_decision as
select
    run.run_id,
    decision.preset,
    decision.token_group,
    run.layer,
    decision.decision,
    decision.p_value,
    decision.power,
    decision.break_rank,
    decision.break_low,
    decision.break_high,
    decision.step,
    decision.step_low,
    decision.step_high,
    decision.head,
    decision.slope_ratio,
    decision.slope_ratio_low,
    decision.slope_ratio_high,
    decision.equal_slope_p_value,
    decision.hinge_p_value,
    decision.free_p_value,
    decision.kappa,
    decision.bend_rank,
    decision.bend_slope,
    decision.tail,
    decision.tail_rank,
    decision.tail_p_value,
    decision.slope_break_log_rank,
    decision.slope_break_low,
    decision.slope_break_high,
    decision.slope_break_form,
    decision.slope_break_change,
    decision.slope_break_p_value,
    decision.slope_breaks_near_5,
    decision.errors_known,
    decision.draws,
    decision.ranks,
    decision.reason
from store.regime_decision as decision
join store.run as run using (run_key);
