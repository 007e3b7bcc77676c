-- Beyond the papers: does the first-order estimate find the neurons?
select
    run_id,
    preset,
    printf('%d of the first 50 [%.0f, %.0f]; rank correlation %.3f', shared_50, shared_50_low, shared_50_high,
        rank_correlation) as measured,
    'measured' as verdict
from attribution_agreement
where token_group = 'rare' and decile is null and shared_50 is not null
