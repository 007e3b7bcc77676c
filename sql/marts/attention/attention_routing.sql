-- attention_routing: where heads look at rare and at common tokens.
-- One row per run × preset × attention_layer × head, and one over all heads.
--   run_id                the run
--   preset                definition of rare and common (see position_group)
--   token_group           rare: columns without `common` in their name are about rare targets
--   layer                 layer of the neurons
--   attention_layer       layer of the head, from 0; NULL: over all heads
--   head                  index of the head, from 0; NULL: means over all heads
--   positions             positions with a rare target
--   common_positions      positions with a common target
--   units                 units of windows that hold both, which are resampled
--   correlation           Pearson correlation of the two mean distributions over relative position
--   correlation_low       lower end of its 95 % interval over units
--   correlation_high      upper end of the same
--   correlation_sd        standard deviation over heads
--   self_correlation      the same between the rare tokens of every other unit and those of the
--                         rest: what noise leaves of a correlation of 1
--   gini                  mean over positions of the weights' Gini coefficient
--   common_gini           the same at common targets
--   gini_sd               standard deviation over heads
--   common_gini_sd        of the same
--   gini_difference       gini − common_gini
--   gini_low              lower end of its 95 % interval over units; NULL over all heads
--   gini_high             upper end of the same
--   gini_p_value          permutation test of the difference: within units for a head, within heads
--                         over all heads
--   gini_p_holm           corrected over the heads
--   profile_gini          Gini coefficient of the mean distribution over relative position
--   common_profile_gini   the same at common targets
--   entropy               mean over positions of the weights' entropy, nats
--   common_entropy        the same at common targets
--   first_share           weight on the window's first token
--   common_first_share    the same at common targets
--   mean_distance         tokens back, mean over the weights
--   common_mean_distance  the same at common targets
--   reason                why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Attention"; NC §2 and §3.

create or replace view attention_routing as
select
    run.run_id,
    stored.preset,
    stored.token_group,
    run.layer,
    stored.attention_layer,
    stored.head,
    stored.positions,
    stored.common_positions,
    stored.units,
    stored.correlation,
    stored.correlation_low,
    stored.correlation_high,
    stored.correlation_sd,
    stored.self_correlation,
    stored.gini,
    stored.common_gini,
    stored.gini_sd,
    stored.common_gini_sd,
    stored.gini_difference,
    stored.gini_low,
    stored.gini_high,
    stored.gini_p_value,
    stored.gini_p_holm,
    stored.profile_gini,
    stored.common_profile_gini,
    stored.entropy,
    stored.common_entropy,
    stored.first_share,
    stored.common_first_share,
    stored.mean_distance,
    stored.common_mean_distance,
    stored.reason
from store.attention_routing as stored
join store.run as run using (run_key);
