-- head_ablation: what ablating attention heads does to a group of neurons, and to the loss.
-- One row per run × head_ablation × preset × token_group × group × target × layer × head × draw.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common: the positions that means are taken over
--   layer               layer of the neurons
--   head_ablation       what replaced a head's output: zero, mean or uniform
--   group_name          group of neurons, chosen on rare tokens (see neuron_group)
--   k                   neurons in the group
--   target              head; layer, all heads of it; norm and feed_forward, controls: a random
--                       share as large as one head's of the attention; and over all layers:
--                       largest_head, the head with the largest impact; random_head, the mean over
--                       heads; control, the mean over controls
--   attention_layer     layer that was edited, from 0
--   head                index of the head, from 0
--   draw                which of a control's random shares
--   positions           positions that means are taken over
--   units               units of windows, which are resampled
--   activation_change   mean over the group's neurons of (mean with the edit − mean without) /
--                       |mean without|
--   change_low          lower end of its 95 % interval over units
--   change_high         upper end of the same
--   impact              mean over the group's neurons of the same without sign (NC eq. 3)
--   pooled_change       sum over the neurons of the change / sum of |mean without|: not moved by a
--                       neuron whose mean is near 0
--   effect_size         Cohen's d between the group's activations with and without the edit, over
--                       units
--   p_value             permutation test of the two, paired within units
--   versus_common       activation_change at rare − at common targets; NULL in rows of common ones
--   versus_common_low   lower end of its 95 % interval over units
--   versus_common_high  upper end of the same
--   head_share          mean over the group's neurons of the head's share of what all single heads
--                       change; for largest_head the largest of any head
--   random_share        mean of the same over random groups of as many neurons
--   random_share_sd     its standard deviation
--   random_groups       number of these random groups
--   share_p_value       (1 + random groups with as large a share) / (1 + random groups); for
--                       largest_head: has the group any head of its own?
--   share_p_holm        for a head: corrected over the heads
--   loss_positions      positions of the token group in the subsample
--   delta_loss          mean over these of loss with the edit − without, nats
--   delta_loss_low      lower end of its 95 % interval over windows
--   delta_loss_high     upper end of the same
--   reason              why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Attention"; NC table 2.

create or replace view head_ablation as
select
    run.run_id,
    stored.preset,
    stored.token_group,
    run.layer,
    stored.head_ablation,
    stored.group_name,
    stored.k,
    stored.target,
    stored.attention_layer,
    stored.head,
    stored.draw,
    stored.positions,
    stored.units,
    stored.activation_change,
    stored.change_low,
    stored.change_high,
    stored.impact,
    stored.pooled_change,
    stored.effect_size,
    stored.p_value,
    stored.versus_common,
    stored.versus_common_low,
    stored.versus_common_high,
    stored.head_share,
    stored.random_share,
    stored.random_share_sd,
    stored.random_groups,
    stored.share_p_value,
    stored.share_p_holm,
    stored.loss_positions,
    stored.delta_loss,
    stored.delta_loss_low,
    stored.delta_loss_high,
    stored.reason
from store.head_ablation as stored
join store.run as run using (run_key);
