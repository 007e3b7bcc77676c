-- audit_influence: what is wrong with a run's rankings, fits and deviations, counted.
-- One row per run × preset × token_group that has positions or influence.
--   run_id             the run
--   preset             definition of rare and common (see position_group)
--   token_group        rare or common
--   missing_neurons    neurons of the run less rows of neuron_influence
--   not_permuted       ranks that keep rank, or abs_mean_rank, from being 1 … N each once
--   out_of_order       neurons with a larger influence than the one ranked before them
--   impossible         |mean| above mean |delta|, a value that is not finite, or a role that is not
--                      the sign of mean_delta_loss
--   other_positions    rows that count positions other than position_group's
--   missing_deviation  ranked neurons without a row of neuron_deviation at the same rank
--   fits               rows of power_law_fit
--   bad_fit            κ is present but first_rank, last_rank and ranks are not in order; r2 is
--                      above 1; or both κ and a reason are missing
--   unbalanced         |mean difference| of log influence from the line with its head and tail over
--                      the fitted ranks, which least squares makes 0
--   unknown_regimes    deviations whose regime is none of the four, or that have one without a fit

create or replace view audit_influence as
with run as (
    select run_id, neurons from dim_run where status = 'published'
),

-- Not materialized: a filter on the run must reach the tables, where other runs are many.
ranked as not materialized (
    select
        *,
        lag(influence) over (partition by run_id, preset, token_group order by rank) as before
    from neuron_influence
),

member as (
    select run_id, preset, token_group, count(*) as positions
    from position_group
    group by all
),

ranking as (
    select
        ranked.run_id,
        ranked.preset,
        ranked.token_group,
        count(*) as neurons,
        count(*) - count(distinct ranked.rank)
        + count(*) - count(distinct ranked.abs_mean_rank)
        + count(*) - count(distinct ranked.neuron)
        + count_if(ranked.rank not between 1 and run.neurons)
        + count_if(ranked.abs_mean_rank not between 1 and run.neurons)
        + count_if(ranked.neuron >= run.neurons) as not_permuted,
        count_if(ranked.influence > ranked.before) as out_of_order,
        count_if(
            not isfinite(ranked.influence)
            or not isfinite(ranked.mean_delta_loss)
            or abs(ranked.mean_delta_loss) > ranked.influence * (1 + 1e-12)
            or ranked.abs_mean_delta_loss <> abs(ranked.mean_delta_loss)
            or ranked.role is distinct from case
                when ranked.mean_delta_loss > 0 then 'boost'
                when ranked.mean_delta_loss < 0 then 'suppress'
            end
        ) as impossible,
        count_if(ranked.positions is distinct from member.positions) as other_positions
    from ranked
    join run using (run_id)
    left join member using (run_id, preset, token_group)
    group by all
),

fitted as (
    select
        run_id,
        preset,
        token_group,
        count(*) as fits,
        count_if(
            not (kappa is null or coalesce(first_rank < last_rank and last_rank <= ranks, false))
            or not coalesce(r2 <= 1 + 1e-9, true)
            or not coalesce(isfinite(kappa) and isfinite(beta), reason is not null)
        ) as bad_fit
    from power_law_fit
    group by all
),

placed as (
    select
        ranked.run_id,
        ranked.preset,
        ranked.token_group,
        count_if(deviation.neuron is null) as missing_deviation,
        round(
            abs(
                sum(
                    try_cast(
                        deviation.deviation
                        - fit.tail * ln((fit.ranks + 1 - deviation.rank) / (fit.ranks + 1))
                        - if(
                            deviation.rank <= fit.head_rank,
                            fit.step + (fit.head_slope - fit.kappa)
                            * (ln(fit.head_rank + 0.5) - ln(deviation.rank)),
                            0
                        ) as decimal(38, 18)
                    )
                ) filter (where deviation.rank <= fit.ranks // 2) / (fit.ranks // 2)
            ), 9
        ) as unbalanced,
        count_if(
            deviation.regime not in ('plateau', 'head', 'power law', 'rapid decay')
            or (deviation.regime is null) <> (fit.kappa is null or ranked.influence = 0)
            or not coalesce(isfinite(deviation.deviation), true)
        ) as unknown_regimes
    from ranked
    left join neuron_deviation as deviation using (run_id, preset, token_group, neuron, rank)
    left join power_law_fit as fit using (run_id, preset, token_group)
    group by ranked.run_id, ranked.preset, ranked.token_group, fit.ranks
),

judged as (
    select
        run_id,
        preset,
        token_group,
        coalesce(ranking.neurons, 0) as neurons,
        coalesce(ranking.not_permuted, 0) as not_permuted,
        coalesce(ranking.out_of_order, 0) as out_of_order,
        coalesce(ranking.impossible, 0) as impossible,
        coalesce(ranking.other_positions, 0) as other_positions
    from member
    full join ranking using (run_id, preset, token_group)
),

final as (
    select
        run.run_id,
        judged.preset,
        judged.token_group,
        abs(run.neurons::bigint - judged.neurons) as missing_neurons,
        judged.not_permuted,
        judged.out_of_order,
        judged.impossible,
        judged.other_positions,
        coalesce(placed.missing_deviation, 0) as missing_deviation,
        coalesce(fitted.fits, 0) as fits,
        coalesce(fitted.bad_fit, 0) as bad_fit,
        coalesce(placed.unbalanced, 0) as unbalanced,
        coalesce(placed.unknown_regimes, 0) as unknown_regimes
    from run
    join judged using (run_id)
    left join fitted using (run_id, preset, token_group)
    left join placed using (run_id, preset, token_group)
)

select * from final;
