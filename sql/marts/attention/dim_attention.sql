-- dim_attention: how the attention of a run was measured.
-- One row per run × head_ablation.
--   run_id                  the run
--   head_ablation           what replaced a head's output: zero; mean, its mean over the sampled
--                           positions; uniform, what even attention gives (NC eq. 8)
--   layers                  layers whose heads were edited
--   heads                   number of heads in each of them
--   loss_positions          positions at which the loss was measured, in whole windows drawn by
--                           the run's seed
--   windows_per_unit        the most windows whose activations are summed together; units are
--                           resampled
--   structural_check_error  largest error against the hooked model, in units of its tolerance
--   seconds                 duration of the measurement since its last interruption
--   code_version            version of this package that measured it
--
-- Added by `ingest --attention`.

create or replace view dim_attention as
select
    run.run_id,
    stored.head_ablation,
    stored.layers,
    stored.heads,
    stored.loss_positions,
    stored.windows_per_unit,
    stored.structural_check_error,
    stored.seconds,
    stored.code_version
from store.dim_attention as stored
join store.run as run using (run_key);
