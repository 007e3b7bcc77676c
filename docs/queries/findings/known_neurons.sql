-- Beyond the papers: are they entropy neurons (largest null-space share) or frequency neurons (largest correlation with
-- token frequency; both after Stolfo et al.)? Of the first 50 for rare tokens, shared with the first 50 by either.
select
    run_id,
    preset,
    string_agg(
        printf('%s %d of 50 (by chance %.1f, p %.1e)',
            if(other_ranking = 'null_space_share', 'null space', 'frequency'), shared_50, expected_50, p_50),
        '; ' order by other_ranking
    ) as measured,
    'measured' as verdict
from ranking_overlap
where
    run_id = other_run_id and token_group = 'rare' and ranking = 'influence'
    and other_ranking in ('null_space_share', 'frequency_correlation')
group by run_id, preset
