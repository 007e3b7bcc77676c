-- ES table 4: Hill's α of the spectrum of output weights, by each rule for the tail, measured beside printed.
-- The interval assumes independent Pareto draws; random groups have the mean ± standard deviation over 100. p: Holm.
with measured as (
    select
        run_id,
        rule,
        if(group_name = 'control', 'random', group_name) as group_name,
        case
            when group_name = 'control' then printf('%.2f ± %.2f', avg(alpha), stddev(alpha))
            when any_value(alpha_low) is null then printf('%.2f', any_value(alpha))
            else printf('%.2f [%.2f, %.2f]', any_value(alpha), any_value(alpha_low), any_value(alpha_high))
        end as shown
    from weight_spectrum
    where matrix = 'w_out' and group_name in ('boost', 'suppress', 'control', 'layer') and (k = 50 or group_name = 'layer')
    group by run_id, rule, group_name
),

test as (
    select run_id, regexp_extract(setting, 'rule=(\w+)', 1) as rule, group_name || '_p', printf('%.3f', p_holm)
    from group_test
    where
        analysis = 'weight_spectrum' and statistic = 'alpha' and setting like 'matrix=w\_out%' escape '\' and test = 'control'
        and group_name in ('boost', 'suppress')
),

every as (
    select 1 as printed, run.model, run.revision, run.corpus, run.created_at, rule, group_name, shown
    from (from measured union all from test) join dim_run as run using (run_id)
    union all
    select 2, model, 'as printed', null, null, 'fix_finger', group_name, printf('%g', value)
    from published_value
    where paper = 'ES' and place = 'table 4' and quantity = 'hill_alpha'
)

select
    model,
    revision,
    corpus,
    rule,
    max(shown) filter (group_name = 'boost') as boost,
    max(shown) filter (group_name = 'suppress') as suppress,
    max(shown) filter (group_name = 'random') as random,
    max(shown) filter (group_name = 'layer') as whole_layer,
    max(shown) filter (group_name = 'boost_p') as p_boost,
    max(shown) filter (group_name = 'suppress_p') as p_suppress
from every
group by printed, model, revision, corpus, created_at, rule
order by printed, created_at, model, rule
