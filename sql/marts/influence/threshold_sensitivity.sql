-- threshold_sensitivity: the curve of influence described on both sides of every threshold.
-- One row per run × preset × token_group × percentile.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common
--   layer               layer of the neurons
--   percentile          where the line is drawn: of types, or of occurrences in preset nc
--   positions           number of positions
--   distinct_threshold  false: the next lower percentile asked for selects the same positions
--   same_as_percentile  the lowest percentile asked for that selects the same positions
--   kappa               on the window auto, as in power_law_fit
--   beta                β of the same
--   r2                  share of the variance of log influence that the line explains
--   first_rank          first rank of the power law
--   last_rank           last rank of the power law
--   share_within_0_1    of all ranks: |deviation from the power law| < 0.1
--   neurons_above_0_5   deviation from the power law > 0.5
--   decision            as in regime_decision, by its faster form
--   p_value             of a step in the head, on pure Pareto draws
--   power               of finding 1 % of the neurons raised by 0.5 at p < 0.01
--   break_rank          last rank above the most surprising step of the head
--   step                height of that step, log influence
--   top_overlap         share of the 50 most influential neurons that are so at the preset's own
--                       percentile
--   rank_correlation    Spearman's, of influence, with that at the preset's own percentile
--   ranks               neurons with an influence above 0
--   reason              why a value is NULL; NULL where there is nothing to say
--
-- The decision here is a faster form of regime_decision's, without the neurons' errors and the
-- tail.

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
    sensitivity.beta,
    sensitivity.r2,
    sensitivity.first_rank,
    sensitivity.last_rank,
    sensitivity.share_within_0_1,
    sensitivity.neurons_above_0_5,
    sensitivity.decision,
    sensitivity.p_value,
    sensitivity.power,
    sensitivity.break_rank,
    sensitivity.step,
    sensitivity.top_overlap,
    sensitivity.rank_correlation,
    sensitivity.ranks,
    sensitivity.reason
from store.threshold_sensitivity as sensitivity
join store.run as run using (run_key);
