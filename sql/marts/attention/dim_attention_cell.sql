-- dim_attention_cell: positions of a run whose activations and attention are summed together.
-- One row per run × head_ablation × cell × token group that it is in.
--   run_id         the run
--   head_ablation  what replaced a head's output: zero, mean or uniform
--   cell           number of the cell, from 0
--   preset         definition of rare and common (see position_group)
--   token_group    rare or common
--   window_id      first window of the unit that the cell is of
--   positions      in the cell
--   has_loss       whether the unit is of the subsample whose loss was measured
--
-- A cell is what a unit of windows has of positions that are in the same token groups. The cells of
-- a token group make it up whole.

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
