-- audit_drift: how far a run is from the previous training step of the same model.
-- One row per run whose revision names a training step, if there is an earlier one.
--   run_id            the run
--   previous_run_id   published run of the latest earlier checkpoint of the same branch, by stage
--                     and step, that asked for the same: its identity is equal except for the
--                     revision and the weights. A twin has no facts and is passed over
--   steps             training steps between the two; NULL if they are of two stages
--   moved_targets     positions whose targets differ, or that only one of them has
--   loss_rise         mean loss less that of the previous step, nats
--   influence_ratio   mean influence (preset nc, both groups) over that of the previous step
--   changed_neurons   share of neurons whose mean activation differs

create or replace view audit_drift as
with run as (
    select
        run_id,
        model,
        positions,
        neurons,
        training_branch,
        {'stage': coalesce(training_stage, 0), 'step': training_step} as place,
        json_merge_patch(identity, '{"model_hash": null, "revision": null}') as asked
    from dim_run
    where status = 'published' and training_step is not null
),

pair as (
    select
        run.run_id,
        run.place,
        run.positions,
        run.neurons,
        max(earlier.place) as previous_place,
        arg_max(earlier.run_id, earlier.place) as previous_run_id
    from run
    join run as earlier
        on
            run.model = earlier.model and run.asked = earlier.asked
            and run.training_branch is not distinct from earlier.training_branch
            and run.place > earlier.place
    group by all
),

position_sum as (
    select
        pair.run_id,
        pair.positions - count_if(here.target_token_id = there.target_token_id) as moved_targets,
        exact_avg(here.loss) - exact_avg(there.loss) as loss_rise
    from pair
    join dim_position as here on pair.run_id = here.run_id
    left join dim_position as there
        on pair.previous_run_id = there.run_id and here.position_id = there.position_id
    group by pair.run_id, pair.positions
),

neuron_sum as (
    select
        pair.run_id,
        count_if(here.mean_activation is distinct from there.mean_activation) / count(*)
            as changed_neurons
    from pair
    join dim_neuron as here on pair.run_id = here.run_id
    left join dim_neuron as there
        on pair.previous_run_id = there.run_id and here.neuron = there.neuron
    group by pair.run_id
),

-- The influence of these runs alone: there may be many others.
mean as (
    select
        side.run_id,
        exact_avg(case when side.is_here then neuron_influence.influence end) as here,
        exact_avg(case when not side.is_here then neuron_influence.influence end) as there
    from (
        select run_id, run_id as of_run, true as is_here from pair
        union all
        select run_id, previous_run_id as of_run, false as is_here from pair
    ) as side
    join neuron_influence on side.of_run = neuron_influence.run_id
    where neuron_influence.preset = 'nc'
    group by side.run_id
),

final as (
    select
        pair.run_id,
        pair.previous_run_id,
        case
            when pair.place.stage = pair.previous_place.stage
                then pair.place.step - pair.previous_place.step
        end as steps,
        position_sum.moved_targets,
        position_sum.loss_rise,
        mean.here / nullif(mean.there, 0) as influence_ratio,
        neuron_sum.changed_neurons
    from pair
    left join position_sum using (run_id)
    left join neuron_sum using (run_id)
    left join mean using (run_id)
)

select * from final;
