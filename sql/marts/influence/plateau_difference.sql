-- plateau_difference: the head and power law of rare tokens against those of common tokens.
-- One row per run × preset.
--   run_id      the run
--   preset      definition of rare and common (see position_group)
--   layer       layer of the neurons
--   step        step of the rare group minus that of the common group (see power_law_fit)
--   step_low    lower end of its 95 % interval, with the same windows resampled for both groups
--   step_high   upper end of the same
--   size        head_rank of the rare group minus that of the common group
--   size_low    lower end of its interval
--   size_high   upper end of the same
--   determined  false: the end of a head is not determined, so neither are step and size
--   kappa       κ of the rare group minus κ of the common group
--   kappa_low   lower end of its interval
--   kappa_high  upper end of the same
--   first       head_rank of the rare group
--   shared      how many of these neurons are among as many of the common group's
--   windows     number of windows resampled
--   draws       bootstrap samples
--   reason      why a value is NULL; NULL if none is
--
-- This single question tells whether the plateau is one of rare tokens. Two verdicts of
-- regime_decision can differ merely because one group has few positions.

create or replace view plateau_difference as
select
    run.run_id,
    difference.preset,
    run.layer,
    difference.step,
    difference.step_low,
    difference.step_high,
    difference.size,
    difference.size_low,
    difference.size_high,
    difference.determined,
    difference.kappa,
    difference.kappa_low,
    difference.kappa_high,
    difference.first,
    difference.shared,
    difference.windows,
    difference.draws,
    difference.reason
from store.plateau_difference as difference
join store.run as run using (run_key);
