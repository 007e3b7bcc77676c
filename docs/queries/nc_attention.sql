-- NC §3: where heads look at rare and at common tokens, over the heads of the layers measured (mean ± standard
-- deviation over heads). self: the same correlation between the rare tokens of every other window and of the rest.
with every as (
    select
        1 as printed, model, revision, corpus, created_at,
        printf('%.3f ± %.3f', correlation, correlation_sd) as correlation,
        printf('%.4f', self_correlation) as self_correlation,
        printf('%.3f ± %.3f', gini, gini_sd) as gini_rare,
        printf('%.3f ± %.3f', common_gini, common_gini_sd) as gini_common,
        printf('%.3f', gini_p_value) as p,
        printf('%.3f / %.3f', profile_gini, common_profile_gini) as profile_gini,
        printf('%.2f / %.2f', entropy, common_entropy) as entropy,
        printf('%.1f / %.1f', mean_distance, common_mean_distance) as distance,
        printf('%.3f / %.3f', first_share, common_first_share) as first_token
    from attention_routing join dim_run using (run_id)
    where head is null and token_group = 'rare'
    union all
    select
        2, 'as printed', null, null, null,
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'attention_correlation'), null,
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'attention_gini' and group_name = 'rare'),
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'attention_gini' and group_name = 'common'),
        max(printf('%g', value)) filter (quantity = 'attention_gini_p_value'), null, null, null, null
    from published_value
    where paper = 'NC' and place = '§3'
)

select
    model, revision, corpus, correlation, self_correlation, gini_rare, gini_common, p, profile_gini, entropy, distance,
    first_token
from every
order by printed, created_at
