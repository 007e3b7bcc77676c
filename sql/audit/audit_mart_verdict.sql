-- audit_mart_verdict: the second audit: what must hold for what publishing computes from the parts.
-- One row per run × relation × expectation.
--   run_id        the run
--   suite         marts; or drift, if there is an earlier step of the same model
--   relation      the relation it is about
--   expectation   what must hold
--   observed      how many rows violate it, or the value that must lie between the bounds
--   least         observed must be at least this; NULL: no bound
--   most          observed must be at most this; NULL: no bound
--   failures      how many rows, neurons or values violate it; 0 if it holds
--   is_integrity  the relation is wrong, so no reason can let the run through
--
-- The bounds of drift are wide: they catch a checkpoint that is another's copy, another tokenizer
-- or a broken file, not training itself.

create or replace view audit_mart_verdict as
with run as (
    select run_id, effects from dim_run where status = 'published'
),

influence as (
    select
        run_id,
        sum(missing_neurons) as missing_neurons,
        sum(not_permuted) as not_permuted,
        sum(out_of_order) as out_of_order,
        sum(impossible) as impossible,
        sum(other_positions) as other_positions,
        sum(missing_deviation) as missing_deviation,
        sum(abs(fits - 1)) as missing_fits,
        sum(bad_fit) as bad_fit,
        max(unbalanced) as unbalanced,
        sum(unknown_regimes) as unknown_regimes
    from audit_influence
    group by run_id
),

-- A run in which no position has a frequency has no groups, and nothing to rank.
has_groups as (
    select distinct run_id from position_group
),

judged as (
    select
        run.run_id,
        unnest([
            {
                suite: 'marts', relation: 'token_frequency', expectation: 'frequencies sum to 1',
                observed: frequency.off_one, least: 0, most: 1e-9
            },
            {
                suite: 'marts', relation: 'token_frequency',
                expectation: 'ranks are a permutation, in the order of the counts',
                observed: frequency.not_permuted + frequency.out_of_order, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'token_frequency',
                expectation: 'percentiles are within 0 and 100 and fall with rank',
                observed: frequency.outside + frequency.falling, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'position_group',
                expectation: 'a preset has a position once, rare or common',
                observed: cell.repeated + cell.unknown_groups, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'position_group',
                expectation: 'positions have a frequency',
                observed: cell.outside, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'agg_effect',
                expectation: 'positions of cells sum to those that have a frequency',
                observed: cell.cell_difference, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'agg_effect',
                expectation: 'has every neuron in every cell once',
                observed: cell.wrong_neurons, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'agg_effect',
                expectation: 'sums are finite and possible',
                observed: cell.impossible_sums, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'agg_effect',
                expectation: 'sums agree with neuron_influence',
                observed: cell.unequal_influence, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_influence',
                expectation: 'has every neuron in every group once',
                observed: influence.missing_neurons, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_influence',
                expectation: 'ranks are a permutation of the neurons',
                observed: influence.not_permuted, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_influence',
                expectation: 'influence falls with rank',
                observed: influence.out_of_order, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_influence',
                expectation: 'values are finite, |mean| is at most mean |.|, role is its sign',
                observed: influence.impossible, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_influence',
                expectation: 'positions are those of position_group',
                observed: influence.other_positions, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'power_law_fit', expectation: 'has every group once',
                observed: influence.missing_fits, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'power_law_fit',
                expectation: 'window, r2 and values are sound, or there is a reason',
                observed: influence.bad_fit, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_deviation',
                expectation: 'has every ranked neuron',
                observed: influence.missing_deviation, least: 0, most: 0
            },
            {
                suite: 'marts', relation: 'neuron_deviation',
                expectation: 'the line with head and tail leaves a mean of 0',
                observed: influence.unbalanced, least: 0, most: 1e-6
            },
            {
                suite: 'marts', relation: 'neuron_deviation',
                expectation: 'regimes are known, and there where there is a fit',
                observed: influence.unknown_regimes, least: 0, most: 0
            }
        ], recursive := true),
        true as is_integrity
    from run
    join has_groups using (run_id)
    left join audit_frequency as frequency using (run_id)
    left join audit_group as cell using (run_id)
    left join influence using (run_id)
),

drifted as (
    select
        run_id,
        unnest([
            {
                suite: 'drift', relation: 'dim_position',
                expectation: 'targets are those of the previous step',
                observed: moved_targets, least: 0, most: 0
            },
            {
                suite: 'drift', relation: 'dim_position',
                expectation: 'mean loss rises by at most 1 nat from the previous step',
                observed: loss_rise, least: null, most: 1
            },
            {
                suite: 'drift', relation: 'neuron_influence',
                expectation: 'mean influence is within 1000 times that of the previous step',
                observed: influence_ratio, least: 1e-3, most: 1e3
            },
            {
                suite: 'drift', relation: 'dim_neuron',
                expectation: 'mean activations are not those of the previous step',
                observed: changed_neurons, least: 0.5, most: 1
            }
        ], recursive := true),
        false as is_integrity
    from audit_drift
),

final as (
    select
        run_id,
        suite,
        relation,
        expectation,
        coalesce(observed::double, 'inf'::double) as observed,
        least::double as least,
        most::double as most,
        audit_failures(coalesce(observed::double, 'inf'::double), least, most) as failures,
        is_integrity
    from (select * from judged union all by name select * from drifted)
)

select * from final;
