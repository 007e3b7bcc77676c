-- dim_attention_cell: positions of a run whose activations and attention are summed together.
-- One row per run × head_ablation × cell × token group that holds it.
--   run_id         the run
--   head_ablation  what replaced a head's output: zero, mean or uniform
--   cell           number of the cell, from 0
--   preset         definition of rare and common (see position_group)
--   token_group    rare or common
--   window_id      first window of the cell's unit
--   positions      positions in the cell
--   has_loss       whether the unit is in the subsample whose loss was measured
--
-- A cell holds the positions of a unit of windows that are in the same token groups. A token group
-- is the union of its cells.

create or replace view dim_attention_cell as
select
    run.run_id,
    stored.head_ablation,
    stored.cell,
    stored.preset,
    stored.token_group,
    stored.window_id,
    stored.positions,
    stored.has_loss
from store.dim_attention_cell as stored
join store.run as run using (run_key);
