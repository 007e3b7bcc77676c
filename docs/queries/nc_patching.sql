-- NC A.5: a layer's attention output, or a head's, taken from another window: the activation of the plateau neurons (or
-- the top 1 %) and the loss at rare tokens of the subsample. Heads: the one with the largest change.
select
    run.model, run.revision, run.corpus, k, target, attention_layer, arg_max(head, impact) as head,
    arg_max(printf('%.1f [%.1f, %.1f]', 100 * activation_change, 100 * change_low, 100 * change_high), impact) as change,
    arg_max(printf('%.2f', effect_size), impact) as effect_size,
    arg_max(printf('%.4f', p_value), impact) as p,
    arg_max(printf('%.3f [%.3f, %.3f]', delta_loss, delta_loss_low, delta_loss_high), impact) as delta_loss
from activation_patching join dim_run as run using (run_id)
where token_group = 'rare' and group_name in ('plateau', 'top') and activation_change is not null
group by all
order by any_value(run.created_at), target, attention_layer
