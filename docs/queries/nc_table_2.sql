-- NC table 2: what ablating heads does to the activation of the plateau neurons, at rare tokens, for each run that has
-- attention. change: mean over the neurons of the relative change of their mean activation, %, and its 95 % interval
-- over windows; effect_size: Cohen's d over windows; share: of the change by all single heads, beside random groups'.
with measured as (
    select
        run_id, model, revision, corpus, created_at, group_name, k, head_ablation, target, attention_layer, head,
        printf('%.1f [%.1f, %.1f]', 100 * activation_change, 100 * change_low, 100 * change_high) as change,
        printf('%.1f', 100 * pooled_change) as pooled,
        printf('%.2f', effect_size) as effect_size,
        printf('%.4f', p_value) as p,
        printf('%.1f [%.1f, %.1f]', 100 * versus_common, 100 * versus_common_low, 100 * versus_common_high) as rare_less_common,
        printf('%.2f (%.2f ± %.2f), p %.3f', head_share, random_share, random_share_sd, share_p_value) as share,
        printf('%.3f [%.3f, %.3f]', delta_loss, delta_loss_low, delta_loss_high) as delta_loss
    from head_ablation join dim_run using (run_id)
    where
        token_group = 'rare' and group_name in ('plateau', 'top') and activation_change is not null
        and target in ('largest_head', 'random_head', 'layer', 'control')
),

every as (
    select
        1 as printed, model, revision, corpus, created_at, k, head_ablation, attention_layer, target, head, change,
        pooled, effect_size, p, rare_less_common, share, delta_loss
    from measured
    union all
    select
        2, model, 'as printed', null, null, null, null, null, group_name, null,
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'plateau_activation_change_percent'), null,
        max(printf('%g', value)) filter (quantity = 'effect_size'),
        max(relation || ' ' || printf('%g', value)) filter (quantity = 'p_value'), null, null, null
    from published_value
    where paper = 'NC' and place = 'table 2'
    group by model, group_name
)

select
    model, revision, corpus, k, head_ablation, target, attention_layer, head, change, pooled, effect_size, p,
    rare_less_common, share, delta_loss
from every
order by printed, created_at, model, head_ablation desc, target, attention_layer
