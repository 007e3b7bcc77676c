-- power_law_fit: the power law of log influence against log rank, between a head and a tail.
-- One row per run × preset × token_group.
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
-- ES eq. 6 and 12, NC eq. 4, in natural logarithms; one least-squares fit of head, power law and
-- tail: docs/definitions.md, "Influence and the power law". This is the curve of mean |delta_loss|
-- over all neurons; power_law_fit_of(statistic, role) has the others. Publishing passes the run's
-- rows of neuron_influence to a function (`Line` in warehouse/publish/marts.py), and reads here as
-- `line` what it returns.

create or replace view power_law_fit as
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
where fit.statistic = 'mean_abs' and fit.role = 'all';

insert into store.power_law_fit by name
with fitted as (
    select $run_key as run_key, line.* from line
),

influence as (
    select distinct preset, token_group from store.neuron_influence where run_key = $run_key
),

empty as (
    select
        $run_key as run_key,
        preset.preset,
        side.token_group,
        curve.statistic,
        curve.role,
        'auto' as rank_window,
        0 as ranks,
        'no position in the group' as reason
    from store.preset as preset
    cross join (values ('rare'), ('common')) as side (token_group)
    cross join (
        select statistic, role
        from (values ('mean_abs'), ('abs_mean')) as s (statistic)
        cross join (values ('all'), ('boost'), ('suppress')) as r (role)
    ) as curve
    anti join influence using (preset, token_group)
    where preset.percentile is not null
)

select * from fitted
union all by name
select * from empty
order by preset, token_group, statistic desc, role;
