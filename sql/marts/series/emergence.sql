-- emergence: a series of checkpoints followed over its training steps.
-- One row per run × preset × token_group × group_name × chosen_at × quantity × rank.
--   run_id          the checkpoint's run
--   training_stage  of the checkpoint; NULL if its revision names none
--   training_step   of the checkpoint; NULL if its revision names none
--   preset          definition of rare and common (see position_group)
--   token_group     rare or common
--   layer           layer of the neurons
--   group_name      boost, suppress, top (1 %) or control; NULL: about the whole curve
--   chosen_at       last: the last checkpoint's group; each: this one's; NULL: no group
--   quantity        kappa, r2, plateau_neurons, plateau_step, plateau_p_value, top_share,
--                   log_influence, deviation, local_slope (these at a rank), group_log_influence,
--                   group_median_rank, group_overlap_with_last, alpha_fix_finger, alpha_mid
--   rank            of a point on the curve; NULL: about the whole curve or group
--   value           value of the quantity
--   low             lower end of the 95 % interval, if there is one; for control, of the middle
--                   95 % of random groups
--   high            upper end of the same
--   reason          why the value is NULL; NULL where there is nothing to say
--
-- See docs/definitions.md, "Emergence"; ES fig. 1, 2, 4, 5 and 6. A series is the runs of one model
-- and branch that differ only in revision. A checkpoint that is missing or failed has one row, with
-- the reason. A twin has the rows of the run whose weights it has, at its own step.

create or replace view emergence as
with shown as (
    select run_key, run_id, training_stage, training_step, layer
    from store.run
    where twin_of is null
    union all
    select run.run_key, twin.run_id, twin.training_stage, twin.training_step, run.layer
    from store.run as twin
    join store.run as run on twin.twin_of = run.run_id
)

select
    run.run_id,
    run.training_stage,
    run.training_step,
    followed.preset,
    followed.token_group,
    run.layer,
    followed.group_name,
    followed.chosen_at,
    followed.quantity,
    followed.rank,
    followed.value,
    followed.low,
    followed.high,
    followed.reason
from store.emergence as followed
join shown as run using (run_key)

union all

select
    run_id,
    training_stage,
    training_step,
    null,
    null,
    layer,
    null,
    null,
    'kappa',
    null,
    null,
    null,
    null,
    if(status = 'missing', 'no effects: the run is missing', 'no effects: the run failed')
from store.run as gap
where
    status in ('missing', 'failed')
    and not exists (
        from store.run as other
        where
            other.status = 'published'
            and other.model = gap.model
            and other.revision = gap.revision
    );
