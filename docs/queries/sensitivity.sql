-- The rare group with its line at every percentile: how much of the result depends on where the line is drawn.
-- top_overlap and rank_correlation compare the ranking with that at the preset's own percentile. Read the rows with
-- distinct positions alone; where kappa is NULL there is no power law.
select
    run.model,
    run.revision,
    run.corpus,
    moved.preset,
    moved.percentile,
    moved.positions,
    moved.distinct_threshold as distinct_positions,
    printf('%.2f [%.2f, %.2f]', moved.kappa, moved.kappa_low, moved.kappa_high) as kappa,
    printf('%.3f', moved.p_value) as plateau_p,
    printf('%.2f', moved.power) as power,
    moved.decision as plateau,
    printf('%.2f', moved.top_overlap) as top_overlap,
    printf('%.2f', moved.rank_correlation) as rank_correlation
from threshold_sensitivity as moved
join dim_run as run using (run_id)
where moved.token_group = 'rare' and run.revision in ('step3979', 'main') and moved.preset = 'es'
order by run.created_at, moved.preset, moved.percentile
