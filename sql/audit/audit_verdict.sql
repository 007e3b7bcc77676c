-- audit_verdict: the first audit: what must hold for a run's parts before any of them is loaded.
-- One row per run × relation × expectation.
--   run_id        the run
--   suite         parts
--   relation      the relation it is about
--   expectation   what must hold
--   observed      how many rows, neurons or values violate it; or the value of audit_value
--   least         observed must be at least this; NULL: no bound
--   most          observed must be at most this; NULL: no bound
--   failures      how many rows, neurons or values violate it; 0 if it holds
--   is_integrity  without it the relations computed at publishing would be wrong or fail, so no
--                 reason can let the run through

create or replace view audit_verdict as
with run as (
    select * from dim_run
),

effect as (
    select
        audit_effect.run_id,
        count(*) as neurons,
        count_if(pairs <> run.positions) as wrong_pairs,
        count_if(audit_effect.position_hash <> position.position_hash) as wrong_positions,
        count_if(neuron >= run.neurons) as unknown_neurons,
        sum(audit_effect.null_values) as null_values,
        count_if(not isfinite(least_activation) or not isfinite(greatest_activation))
            as bad_activations,
        count_if(not isfinite(least_delta) or not isfinite(greatest_delta)) as bad_deltas,
        count_if(greatest(-least_delta, greatest_delta) * run.window_length >= pow(2, 23))
            as huge_deltas,
        sum(audit_effect.effect_values) as effect_values,
        -- NULL where no effect was asked for beyond delta_loss.
        count_if(coalesce(not isfinite(least_effect) or not isfinite(greatest_effect), false))
            as bad_effects
    from audit_effect
    join run using (run_id)
    left join audit_position as position using (run_id)
    group by audit_effect.run_id
),

judged as (
    select
        run.run_id,
        unnest([
            {
                relation: 'fct_effect', expectation: 'has facts of every neuron',
                failures: abs(coalesce(effect.neurons, 0) - run.neurons)
                + coalesce(effect.unknown_neurons, 0), is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'has every neuron at every position once',
                failures: greatest(effect.wrong_pairs, effect.wrong_positions), is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'has no NULL',
                failures: effect.null_values, is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'activation is finite',
                failures: effect.bad_activations, is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'delta_loss is finite',
                failures: effect.bad_deltas, is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: '|delta_loss| × window_length is below 2^23',
                failures: effect.huge_deltas, is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'has each effect that was asked for',
                failures: abs(
                    coalesce(effect.effect_values, 0)
                    - (len(list_distinct(run.effects)) - 1)
                    * run.positions::bigint * run.neurons
                ), is_integrity: true
            },
            {
                relation: 'fct_effect', expectation: 'each effect is finite',
                failures: effect.bad_effects, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'has every position once',
                failures: abs(coalesce(position.positions, 0) - run.positions)
                + position.positions - position.distinct_positions
                + (position.greatest_position >= run.positions)::bigint, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'has no NULL',
                failures: position.null_values, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'position_id tells window and offset',
                failures: position.misplaced, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'tokens are in dim_token',
                failures: position.unknown_tokens, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'targets are in token_frequency',
                failures: position.uncounted_tokens, is_integrity: true
            },
            {
                relation: 'dim_position', expectation: 'documents are in dim_document',
                failures: position.unknown_documents, is_integrity: false
            },
            {
                relation: 'dim_position', expectation: 'loss and entropy are finite',
                failures: position.not_finite, is_integrity: false
            },
            {
                relation: 'dim_position', expectation: 'loss and entropy are not negative',
                failures: position.negative, is_integrity: false
            },
            {
                relation: 'dim_document', expectation: 'has every document once, inside the run',
                failures: position.documents - position.distinct_documents
                + position.outside_documents, is_integrity: false
            },
            {
                relation: 'dim_neuron', expectation: 'has every neuron once',
                failures: abs(coalesce(neuron.neurons, 0) - run.neurons)
                + neuron.neurons - neuron.distinct_neurons
                + (neuron.greatest_neuron >= run.neurons)::bigint, is_integrity: true
            },
            {
                relation: 'dim_neuron', expectation: 'values are finite',
                failures: neuron.not_finite, is_integrity: false
            },
            {
                relation: 'dim_neuron', expectation: 'shares and correlations are in range',
                failures: neuron.outside, is_integrity: false
            },
            {
                relation: 'neuron_weight', expectation: 'has the weights of every neuron once',
                failures: abs(neuron.weights - run.neurons)
                + neuron.weights - neuron.weight_neurons, is_integrity: true
            },
            {
                relation: 'neuron_weight', expectation: 'vectors are of one length and finite',
                failures: neuron.bad_weights, is_integrity: false
            },
            {
                relation: 'neuron_token', expectation: 'has each direction and rank once',
                failures: neuron.moved_tokens - neuron.distinct_tokens, is_integrity: true
            },
            {
                relation: 'neuron_token', expectation: 'directions, tokens and logits are sound',
                failures: neuron.bad_tokens, is_integrity: false
            },
            {
                relation: 'dim_token', expectation: 'has every token once',
                failures: token.tokens - token.distinct_tokens + (token.tokens = 0)::bigint,
                is_integrity: true
            },
            {
                relation: 'token_frequency', expectation: 'counts every token once, some above 0',
                failures: token.counted_tokens - token.distinct_counts
                + (token.occurrences = 0)::bigint, is_integrity: true
            },
            {
                relation: 'token_frequency', expectation: 'tokens are in dim_token',
                failures: token.unknown_counts, is_integrity: false
            }
        ], recursive := true)
    from run
    left join effect using (run_id)
    left join audit_position as position using (run_id)
    left join audit_neuron as neuron using (run_id)
    left join audit_token as token using (run_id)
    where run.status = 'published'
),

counted as (
    -- A relation without a single row has NULL for a count: that is a failure, not a pass.
    select
        run_id,
        relation,
        expectation,
        coalesce(failures, 1)::double as observed,
        0::double as least,
        0::double as most,
        is_integrity
    from judged
),

measured as (
    select * from counted
    union all by name
    select * from audit_value
    union all by name
    select * from audit_context
),

final as (
    select
        run_id,
        'parts' as suite,
        relation,
        expectation,
        observed,
        least,
        most,
        audit_failures(observed, least, most) as failures,
        is_integrity
    from measured
)

select * from final;
