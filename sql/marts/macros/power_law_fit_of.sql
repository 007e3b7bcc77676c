-- power_law_fit_of: the power law of a curve of influence other than power_law_fit's.
-- Macro power_law_fit_of(of_statistic, of_role).
-- Example: from power_law_fit_of('abs_mean', 'boost')
--   run_id          the run
--   preset          definition of rare and common (see position_group)
--   token_group     rare or common
--   layer           layer of the neurons
--   statistic       what influence is: mean_abs, the mean of |delta_loss|, or abs_mean, |its mean|
--   role            which neurons are in the curve: all, or those of one sign, boost or suppress
--   rank_window     auto: the window follows from the fit
--   kappa           κ of log influence = β − κ log rank on the window; NULL: no power law
--   beta            its β
--   r2              1 − Σ δ² / Σ (y − mean)² on the window; below 0 if a constant fits better
--   tail            τ ≥ 0, how much the curve falls below the power law towards its end
--   head_rank       b, the last rank of the head
--   step            s, how far the head stands above the power law at its end, log influence
--   head_slope      κ + h, minus the head's slope
--   first_rank      first rank of the window, b + 1
--   last_rank       last rank of the window: where the tail takes 0.1 off, at most half the ranks
--   straight_share  share of the window's ranks within 0.1 of the line
--   ranks           ranks with an influence above 0, the only ones in the curve
--   reason          why there is no power law; NULL if there is one
--
-- of_statistic is mean_abs or abs_mean, of_role all, boost or suppress. The authors' own code ranks
-- |mean delta_loss| within one sign: power_law_fit_of('abs_mean', 'boost').

create or replace macro power_law_fit_of(of_statistic, of_role) as table
select
    run.run_id,
    fit.preset,
    fit.token_group,
    run.layer,
    fit.statistic,
    fit.role,
    fit.rank_window,
    fit.kappa,
    fit.beta,
    fit.r2,
    fit.tail,
    fit.head_rank,
    fit.step,
    fit.head_slope,
    fit.first_rank,
    fit.last_rank,
    fit.straight_share,
    fit.ranks,
    fit.reason
from store.power_law_fit as fit
join store.run as run using (run_key)
where
    fit.statistic = one_of(of_statistic, ['mean_abs', 'abs_mean'], 'statistic')
    and fit.role = one_of(of_role, ['all', 'boost', 'suppress'], 'role');
