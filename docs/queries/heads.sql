-- Every head: where it looks at rare and common tokens, and what its ablation does to the plateau neurons (or the top
-- 1 %) and to the loss at rare tokens.
with ablated as (
    select run_id, preset, attention_layer, head, group_name, k, activation_change, head_share, share_p_holm, delta_loss
    from head_ablation
    where
        token_group = 'rare' and target = 'head' and head_ablation = 'zero' and group_name in ('plateau', 'top')
        and (activation_change is not null or group_name = 'top')
)

select
    run.model, run.revision, run.corpus, routing.attention_layer, routing.head,
    printf('%.3f [%.3f, %.3f]', correlation, correlation_low, correlation_high) as correlation,
    printf('%.3f / %.3f', gini, common_gini) as gini,
    printf('%.3f', gini_p_holm) as p_gini,
    printf('%.1f / %.1f', mean_distance, common_mean_distance) as distance,
    printf('%.1f', 100 * activation_change) as change_percent,
    printf('%.2f', head_share) as share,
    printf('%.3f', share_p_holm) as p_share,
    printf('%.4f', ablated.delta_loss) as delta_loss
from attention_routing as routing
join dim_run as run using (run_id)
left join ablated using (run_id, preset, attention_layer, head)
where routing.head is not null and routing.token_group = 'rare'
order by run.created_at, routing.attention_layer, routing.head
