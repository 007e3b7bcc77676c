-- reference_agreement: whether two references, values that an activation is replaced by, agree.
-- One row per run × other run × preset × token_group.
--   run_id                  a run
--   other_run_id            a run that differs from it in nothing but the ablation
--   preset                  definition of rare and common (see position_group)
--   token_group             rare or common
--   layer                   layer of the neurons
--   ablation                what replaces an activation in the run
--   other_ablation          what does in the other
--   rank_correlation        Spearman's, of the neurons' influence in the two runs
--   rank_correlation_low    lower end of its 95 % interval, the same windows resampled for both
--   rank_correlation_high   upper end of the same
--   shared_10               how many of the first 10 neurons are among the first 10 of the other
--   shared_10_low           lower end of its interval
--   shared_10_high          upper end of the same
--   shared_50               the same of the first 50
--   shared_50_low           lower end of its interval
--   shared_50_high          upper end of the same
--   first                   b of the run: break_rank, when the two were compared
--   shared_first            the same of the first b, for b of the run and not of the other
--   shared_first_low        lower end of its interval; b is held fixed
--   shared_first_high       upper end of the same
--   kappa                   κ of the run (see regime_decision, as all that follows)
--   kappa_low               lower end of its interval
--   kappa_high              upper end of the same
--   other_kappa             κ of the other
--   other_kappa_low         lower end of its interval
--   other_kappa_high        upper end of the same
--   step                    s of the run
--   step_low                lower end of its interval
--   step_high               upper end of the same
--   other_step              s of the other
--   other_step_low          lower end of its interval
--   other_step_high         upper end of the same
--   break_rank              b of the run
--   break_low               lower end of its interval
--   break_high              upper end of the same
--   break_determined        false: the interval spans (nearly) every rank at which a head may end
--   other_break_rank        b of the other
--   other_break_low         lower end of its interval
--   other_break_high        upper end of the same
--   other_break_determined  as break_determined, of the other
--   decision                whether the run's curve has a plateau: present, absent, undecided
--   p_value                 of a step at its head
--   other_decision          the same of the other
--   other_p_value           of a step at its head
--   windows                 number of windows resampled
--   draws                   bootstrap samples
--   reason                  why a value of this comparison is NULL; NULL if none is. Why κ, s or a
--                           decision is NULL is in regime_decision
--
-- See docs/references.md. A pair is listed once, under the run that comes first in the order mean,
-- zero, resample, optimal. Pairs with a run that is gone are gone too.

create or replace view reference_agreement as
with decision as (
    select * from store.regime_decision where statistic = 'mean_abs' and role = 'all'
)

select
    run.run_id,
    agreement.other_run_id,
    agreement.preset,
    agreement.token_group,
    run.layer,
    run.ablation,
    other.ablation as other_ablation,
    agreement.rank_correlation,
    agreement.rank_correlation_low,
    agreement.rank_correlation_high,
    agreement.shared_10,
    agreement.shared_10_low,
    agreement.shared_10_high,
    agreement.shared_50,
    agreement.shared_50_low,
    agreement.shared_50_high,
    agreement.first,
    agreement.shared_first,
    agreement.shared_first_low,
    agreement.shared_first_high,
    decision.kappa,
    decision.kappa_low,
    decision.kappa_high,
    other_decision.kappa as other_kappa,
    other_decision.kappa_low as other_kappa_low,
    other_decision.kappa_high as other_kappa_high,
    decision.step,
    decision.step_low,
    decision.step_high,
    other_decision.step as other_step,
    other_decision.step_low as other_step_low,
    other_decision.step_high as other_step_high,
    decision.break_rank,
    decision.break_low,
    decision.break_high,
    decision.break_determined,
    other_decision.break_rank as other_break_rank,
    other_decision.break_low as other_break_low,
    other_decision.break_high as other_break_high,
    other_decision.break_determined as other_break_determined,
    decision.decision,
    decision.p_value,
    other_decision.decision as other_decision,
    other_decision.p_value as other_p_value,
    agreement.windows,
    agreement.draws,
    agreement.reason
from store.reference_agreement as agreement
join store.run as run using (run_key)
join store.run as other
    on agreement.other_run_id = other.run_id and other.status = 'published'
left join decision
    on
        agreement.run_key = decision.run_key
        and agreement.preset = decision.preset
        and agreement.token_group = decision.token_group
left join decision as other_decision
    on
        other.run_key = other_decision.run_key
        and agreement.preset = other_decision.preset
        and agreement.token_group = other_decision.token_group;
