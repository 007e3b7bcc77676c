-- threshold_sensitivity: the curve of influence described on both sides of every threshold.
-- One row per run × preset × token_group × percentile.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common
--   layer               layer of the neurons
--   percentile          the line: a percentile of types, or of occurrences in preset nc
--   positions           number of positions
--   distinct_threshold  false: the next lower percentile asked for selects the same positions
--   same_as_percentile  the lowest percentile asked for that selects the same positions
--   kappa               κ, as in power_law_fit; likewise beta, r2 and the ranks
--   kappa_low           lower end of its 95 % interval over windows of text
--   kappa_high          upper end of the same
--   beta                β
--   r2                  as in power_law_fit
--   first_rank          first rank of the power law
--   last_rank           last rank of the power law
--   straight_share      as in power_law_fit
--   share_within_0_1    of all ranks: |deviation from the power law| < 0.1
--   neurons_above_0_5   deviation from the power law > 0.5
--   decision            as in regime_decision, with fewer draws; likewise the columns that follow
--   p_value             of a step at the head
--   power               probability of finding 1 % of the neurons raised by 0.5 at p < 0.01
--   break_rank          last rank of the head
--   break_low           lower end of its 95 % interval over windows
--   break_high          upper end of the same
--   break_determined    false: the interval spans (nearly) every rank at which a head may end
--   step                height of the head above the power law at its end, log influence
--   step_low            lower end of its 95 % interval over windows
--   step_high           upper end of the same
--   head                raised, shelf or steep
--   head_slope          minus the head's slope
--   top_overlap         share of the 50 most influential neurons that are also so at the preset's
--                       own percentile
--   rank_correlation    Spearman's, between influence here and at the preset's own percentile
--   ranks               neurons with an influence above 0
--   reason              why a value is NULL; NULL if none is
--
-- Percentiles that select the same positions share one computation: read only those with
-- distinct_threshold.

create or replace view threshold_sensitivity as
select
    run.run_id,
    sensitivity.preset,
    sensitivity.token_group,
    run.layer,
    sensitivity.percentile,
    sensitivity.positions,
    sensitivity.distinct_threshold,
    sensitivity.same_as_percentile,
    sensitivity.kappa,
    sensitivity.kappa_low,
    sensitivity.kappa_high,
    sensitivity.beta,
    sensitivity.r2,
    sensitivity.first_rank,
    sensitivity.last_rank,
    sensitivity.straight_share,
    sensitivity.share_within_0_1,
    sensitivity.neurons_above_0_5,
    sensitivity.decision,
    sensitivity.p_value,
    sensitivity.power,
    sensitivity.break_rank,
    sensitivity.break_low,
    sensitivity.break_high,
    sensitivity.break_determined,
    sensitivity.step,
    sensitivity.step_low,
    sensitivity.step_high,
    sensitivity.head,
    sensitivity.head_slope,
    sensitivity.top_overlap,
    sensitivity.rank_correlation,
    sensitivity.ranks,
    sensitivity.reason
from store.threshold_sensitivity as sensitivity
join store.run as run using (run_key);
