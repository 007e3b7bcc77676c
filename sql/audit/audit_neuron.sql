-- audit_neuron: what is wrong with a run's neurons, their weights and their tokens, counted.
-- One row per run that has neurons.
--   run_id             the run
--   neurons            rows of dim_neuron
--   distinct_neurons   different neurons
--   greatest_neuron    largest neuron
--   not_finite         values of dim_neuron that are not finite, and mean activations that are NULL
--   outside            null_space_share outside 0…1, or frequency_correlation outside −1…1
--   weights            rows of neuron_weight
--   weight_neurons     different neurons in it
--   bad_weights        w_out that is NULL, or of another length than the first, or not finite
--   moved_tokens       rows of neuron_token
--   distinct_tokens    different neuron, direction and rank in it
--   bad_tokens         rows of it with another direction than up or down, a token that is not in
--                      dim_token, or a logit that is not finite

create or replace view audit_neuron as
with neuron as (
    select * from dim_neuron
),

weight as (
    select * from neuron_weight
),

moved as (
    select * from neuron_token
),

run as (
    select * from dim_run
),

neuron_sum as (
    select
        run_id,
        count(*) as neurons,
        count(distinct neuron) as distinct_neurons,
        max(neuron) as greatest_neuron,
        count_if(
            not (
                coalesce(isfinite(mean_activation), false)
                and coalesce(isfinite(reference_activation), true)
                and coalesce(isfinite(reference_error), true)
                and coalesce(isfinite(w_out_norm), false)
                and coalesce(isfinite(null_space_share), true)
                and coalesce(isfinite(logit_variance), true)
                and coalesce(isfinite(frequency_correlation), true)
            )
        ) as not_finite,
        count_if(
            null_space_share not between -0.001 and 1.001
            or abs(frequency_correlation) > 1.001
        ) as outside
    from neuron
    group by run_id
),

weight_sum as (
    select
        run_id,
        count(*) as weights,
        count(distinct neuron) as weight_neurons,
        count_if(
            w_out is null
            or len(w_out) <> width
            or not coalesce(isfinite(list_sum(w_out)), false)
            or not coalesce(isfinite(list_sum(w_in)), true)
            or not coalesce(isfinite(list_sum(w_up)), true)
        ) as bad_weights
    from weight
    join (select run_id, max(len(w_out)) as width from weight group by run_id) using (run_id)
    group by run_id
),

token_sum as (
    select
        moved.run_id,
        count(*) as moved_tokens,
        count(distinct (moved.neuron, moved.direction, moved.rank)) as distinct_tokens,
        count_if(
            token.token_id is null
            or moved.direction not in ('up', 'down')
            or not coalesce(isfinite(moved.logit), false)
        ) as bad_tokens
    from moved
    join run using (run_id)
    left join dim_token as token
        on run.tokenizer_id = token.tokenizer_id and moved.token_id = token.token_id
    group by moved.run_id
),

final as (
    select
        neuron_sum.*,
        coalesce(weight_sum.weights, 0) as weights,
        coalesce(weight_sum.weight_neurons, 0) as weight_neurons,
        coalesce(weight_sum.bad_weights, 0) as bad_weights,
        coalesce(token_sum.moved_tokens, 0) as moved_tokens,
        coalesce(token_sum.distinct_tokens, 0) as distinct_tokens,
        coalesce(token_sum.bad_tokens, 0) as bad_tokens
    from neuron_sum
    left join weight_sum using (run_id)
    left join token_sum using (run_id)
)

select * from final;
