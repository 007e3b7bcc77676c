-- ES, DS: rare tokens have neurons of their own. Of the first 50 for rare tokens, how many are among the first 50 for
-- common ones? Contradicted where the interval's lower end is above half.
select
    run_id,
    preset,
    printf(
        '%d of 50 [%.0f, %.0f], by chance %.1f; rank correlation %.2f', shared_50, shared_50_low, shared_50_high,
        expected_50, rank_correlation
    ) as measured,
    case
        when shared_50 is null then 'undecided'
        when shared_50_low > 25 then 'contradicted'
        when shared_50_high < 25 then 'holds'
        else 'undecided'
    end as verdict
from ranking_overlap
where
    run_id = other_run_id and preset = other_preset and ranking = 'influence' and other_ranking = 'influence'
    and token_group = 'rare' and other_token_group = 'common'
