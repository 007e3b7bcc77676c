-- Beyond the papers: how much of the first 50 stays on resampled text.
select
    run_id,
    preset,
    printf('%d of 50 [%.0f, %.0f]; rank correlation %.2f', shared_50, shared_50_low, shared_50_high, rank_correlation)
        as measured,
    'measured' as verdict
from ranking_overlap
where run_id = other_run_id and other_ranking = 'influence on resampled text' and token_group = 'rare'
