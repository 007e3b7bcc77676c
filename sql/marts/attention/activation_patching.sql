-- activation_patching: what another context's attention does to a group of neurons, and the loss.
-- One row per run × preset × token_group × group_name × k × target × attention_layer × head.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common: the subsample's positions that means are taken over
--   layer               layer of the neurons
--   group_name          group of neurons, chosen on rare tokens (see neuron_group)
--   k                   neurons in the group
--   target              head, or layer: all heads of it
--   attention_layer     layer that was edited, from 0
--   head                index of the head, from 0
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
--   loss_positions      positions of the token group in the subsample
--   delta_loss          mean over these of loss with the edit − without, nats
--   delta_loss_low      lower end of its 95 % interval over windows
--   delta_loss_high     upper end of the same
--   reason              why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Attention"; NC A.5. At each position of a window, a head's output is
-- replaced by that at the same place in another window.

create or replace view activation_patching as
select
    run.run_id,
    stored.preset,
    stored.token_group,
    run.layer,
    stored.group_name,
    stored.k,
    stored.target,
    stored.attention_layer,
    stored.head,
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
    stored.loss_positions,
    stored.delta_loss,
    stored.delta_loss_low,
    stored.delta_loss_high,
    stored.reason
from store.activation_patching as stored
join store.run as run using (run_key);
