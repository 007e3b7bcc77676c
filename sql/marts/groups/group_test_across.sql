-- group_test_across: the tests of several runs, corrected over all of them.
-- Macro group_test_across(runs, level).
-- Example: from group_test_across(['embedded-step384', 'embedded-step6144'])
--   run_id          the run
--   preset          definition of rare and common (see position_group)
--   token_group     rare: the positions measured, and the influence that ranks the neurons
--   layer           layer of the neurons
--   analysis        the relation that holds the value
--   statistic       its column
--   setting         the values of its other keys: space=activation, comparison=within
--   group_name      the tested group (see neuron_group)
--   other_group     the other group, if the value is between two
--   k               neurons in the group
--   pool            where the random groups are drawn: disjoint or layer (see neuron_group)
--   test            control (primary) or mann_whitney (as the papers print it)
--   reference_size  number of values that it is compared with
--   value           the group's statistic, or the mean of the sample
--   p_value         p-value before correction, as in group_test
--   family          the tests over which p is corrected, in words: those of one statistic and
--                   setting, over all groups, presets and token groups of the given runs
--   tests           defined p-values in that family
--   p_bonferroni    corrected over the family
--   p_holm          corrected over the family, Holm
--   reason          why a value is NULL; NULL if none is
--
-- runs is a list of run_id, or of how they start. Every run must be there. A control test whose
-- smallest p cannot reach level (default 0.05) over the family has no corrected p, and the reason
-- says how many random groups that takes. See docs/definitions.md, "Tests of significance".

create or replace macro group_test_across(runs, level := 0.05) as table
with chosen as (
    select r.run_id, r.run_key, r.layer
    from store.run as r
    where r.run_key in (
        select run_key_of(asked.run) from (select unnest(runs) as run) as asked
    )
),

-- The reason as it was before the correction within the run.
tested as (
    select
        t.*,
        nullif(
            regexp_replace(
                t.reason,
                '(; )?\d+ random groups cannot reach [^ ]+ over \d+ tests: \d+ are needed$', ''
            ),
            ''
        ) as own_reason,
        c.run_id,
        c.layer
    from store.group_test as t
    join chosen as c using (run_key)
),

-- Holm multiplies the smallest p by the number of tests, the next by one less, and so on.
ordered as (
    select
        *,
        count(p_value) over family_of as family_size,
        count(distinct run_key) over family_of as family_runs,
        row_number() over (family_of order by p_value nulls last) as step
    from tested
    window family_of as (partition by analysis, statistic, setting, test)
),

-- A p is never below that of a smaller one; equal p, which a range takes together, have one value.
stepped as (
    select
        *,
        least(1, p_value * family_size) as bonferroni,
        max(least(1, p_value * (family_size - step + 1))) over (
            partition by analysis, statistic, setting, test
            order by p_value nulls last
            range between unbounded preceding and current row
        ) as holm,
        ceil(family_size / level - 1e-9)::bigint - 1 as needed
    from ordered
),

judged as (
    select
        *,
        test = 'control' and p_value is not null and reference_size < needed as is_short
    from stepped
),

final as (
    select
        run_id,
        preset,
        token_group,
        layer,
        analysis,
        statistic,
        setting,
        group_name,
        other_group,
        k,
        pool,
        test,
        reference_size,
        value,
        p_value,
        concat(
            concat_ws(
                ', ', concat(test, ' tests of ', analysis, '.', statistic), nullif(setting, '')
            ),
            ': all groups, presets and token groups of ',
            if(family_runs = 1, '1 run', family_runs || ' runs')
        ) as family,
        family_size as tests,
        case when not is_short and p_value is not null then bonferroni end as p_bonferroni,
        case when not is_short and p_value is not null then holm end as p_holm,
        case
            when is_short
                then concat_ws(
                    '; ', own_reason,
                    concat(
                        reference_size, ' random groups cannot reach ', level::double, ' over ',
                        family_size, ' tests: ', needed, ' are needed'
                    )
                )
            else own_reason
        end as reason
    from judged
)

select * from final;
