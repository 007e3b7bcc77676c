-- neuron_specificity: whether a neuron matters more for rare tokens than for common ones as hard.
-- One row per run × preset × matching × neuron.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   matching            what rare and common targets have in common besides their window: loss, the
--                       decile of the unablated loss; loss+word, also that they are words that
--                       start a word
--   layer               layer of the neuron
--   neuron              its index in the layer; NULL in the single row of a preset without a
--                       comparison
--   ratio               mean |delta_loss| at rare targets over that at common targets of like loss,
--                       over the median of this over the layer's neurons: e^S
--   ratio_low           lower end of its 95 % interval over windows
--   ratio_high          upper end of the same
--   p_value             that labels permuted within window and stratum of loss do as much
--   adjusted_p_value    the same for the largest of all neurons (maxT)
--   detectable_ratio    the least ratio that would have an adjusted_p_value < 0.05; below 1 its
--                       inverse, for common
--   specific_to         rare where adjusted_p_value < 0.05 and ratio > 1.25; common where
--                       adjusted_p_value < 0.05 and ratio < 0.8; NULL elsewhere
--   rare_positions      rare positions compared
--   common_positions    common positions compared
--   permuted_positions  those in a cell of window and stratum with both labels
--   windows             number of windows resampled; in matched contexts pairs
--   draws               bootstrap samples
--   permutations        of the labels
--   reason              why a value is NULL; NULL if none is. specific_to is NULL without one
--
-- See docs/specificity.md.

create or replace view neuron_specificity as
select
    run.run_id,
    specificity.preset,
    specificity.matching,
    run.layer,
    specificity.neuron,
    specificity.ratio,
    specificity.ratio_low,
    specificity.ratio_high,
    specificity.p_value,
    specificity.adjusted_p_value,
    specificity.detectable_ratio,
    specificity.specific_to,
    specificity.rare_positions,
    specificity.common_positions,
    specificity.permuted_positions,
    specificity.windows,
    specificity.draws,
    specificity.permutations,
    specificity.reason
from store.neuron_specificity as specificity
join store.run as run using (run_key);
