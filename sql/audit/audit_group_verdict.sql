-- audit_group_verdict: what must hold for groups ablated at once before they are added to a run.
-- One row per run that has groups × relation × expectation.
--   run_id        the run
--   suite         groups
--   relation      the relation it is about
--   expectation   what must hold
--   observed      how many groups, rows or values violate it
--   least         observed must be at least this
--   most          observed must be at most this
--   failures      how many groups, rows or values violate it; 0 if it holds
--   is_integrity  no reason can let the groups through

create or replace view audit_group_verdict as
with run as (
    select run_id, neurons, positions from dim_run where status = 'published'
),

position_sum as (
    select run_id, sum(hash(position_id)) as position_hash from dim_position group by run_id
),

effect as (
    select
        run_id,
        group_name,
        count(*) as rows,
        sum(hash(position_id)) as position_hash,
        count_if(delta_loss is null or not isfinite(delta_loss)) as bad_deltas
    from fct_group_effect
    group by run_id, group_name
),

group_count as (
    select run_id, group_name, count(*) as rows from dim_group group by run_id, group_name
),

described as (
    select
        dim_group.run_id,
        count_if(group_count.rows <> 1) as repeated,
        count_if(len(dim_group.neurons) <> dim_group.k or dim_group.k = 0) as wrong_sizes,
        count_if(
            len(list_distinct(dim_group.neurons)) <> len(dim_group.neurons)
            or list_max(dim_group.neurons) >= run.neurons
        ) as unknown_neurons,
        count_if(
            effect.rows is distinct from run.positions
            or effect.position_hash is distinct from position_sum.position_hash
        ) as incomplete,
        count_if(not coalesce(dim_group.structural_check_error <= 1, false)) as unconfirmed,
        coalesce(sum(effect.bad_deltas), 0) as bad_deltas
    from dim_group
    join run using (run_id)
    join group_count using (run_id, group_name)
    left join position_sum using (run_id)
    left join effect using (run_id, group_name)
    group by dim_group.run_id
),

stray as (
    select
        effect.run_id,
        count_if(group_count.group_name is null) as stray
    from effect
    left join group_count using (run_id, group_name)
    group by effect.run_id
),

judged as (
    select
        coalesce(described.run_id, stray.run_id) as run_id,
        unnest([
            {
                relation: 'dim_group', expectation: 'has every group once', failures: repeated
            },
            {
                relation: 'dim_group', expectation: 'groups have as many neurons as k says',
                failures: wrong_sizes
            },
            {
                relation: 'dim_group', expectation: 'neurons are of the layer, each once',
                failures: unknown_neurons
            },
            {
                relation: 'dim_group', expectation: 'structural self-check is within tolerance',
                failures: unconfirmed
            },
            {
                relation: 'fct_group_effect', expectation: 'has every group at every position once',
                failures: incomplete
            },
            {
                relation: 'fct_group_effect', expectation: 'delta_loss is finite',
                failures: bad_deltas
            },
            {
                relation: 'fct_group_effect', expectation: 'groups are in dim_group',
                failures: coalesce(stray.stray, 0)
            }
        ], recursive := true)
    from described
    full join stray using (run_id)
),

final as (
    select
        run_id,
        'groups' as suite,
        relation,
        expectation,
        coalesce(failures, 1)::double as observed,
        0::double as least,
        0::double as most,
        coalesce(failures, 1)::ubigint as failures,
        true as is_integrity
    from judged
)

select * from final;
