-- ES table 2: effective dimension as % of the group's size, by both definitions, measured beside printed.
-- Tested groups have a 95 % interval over windows, random ones mean ± standard deviation over 100. p: controls, Holm.
with measured as (
    select
        run_id,
        if(group_name = 'control', 'random', group_name) as group_name,
        case
            when group_name = 'control'
                then printf('%.1f ± %.1f', avg(dimension_percent), stddev(dimension_percent))
            else
                printf(
                    '%.0f [%.0f, %.0f]', any_value(dimension_percent),
                    any_value(dimension_percent_low), any_value(dimension_percent_high)
                )
        end as components,
        case
            when group_name = 'control'
                then printf('%.1f ± %.1f', avg(participation_percent), stddev(participation_percent))
            else
                printf(
                    '%.1f [%.1f, %.1f]', any_value(participation_percent),
                    any_value(participation_percent_low), any_value(participation_percent_high)
                )
        end as participation
    from effective_dimension
    where token_group = 'rare' and group_name in ('boost', 'suppress', 'control') and k = 50
    group by run_id, group_name
),

test as (
    select run_id, group_name, statistic, printf('%.3f', p_holm) as p
    from group_test
    where analysis = 'effective_dimension' and test = 'control' and token_group = 'rare'
),

every as (
    select 1 as printed, run.model, run.revision, run.corpus, run.created_at, m.*
    from measured as m join dim_run as run using (run_id)
    union all
    select 2, model, 'as printed', null, null, null, group_name, printf('%g', value), printf('%g', value)
    from published_value
    where paper = 'ES' and place = 'table 2' and quantity = 'effective_dimension_percent'
)

select
    e.model,
    e.revision,
    e.corpus,
    max(components) filter (e.group_name = 'boost') as boost_95,
    max(components) filter (e.group_name = 'suppress') as suppress_95,
    max(components) filter (e.group_name = 'random') as random_95,
    max(participation) filter (e.group_name = 'boost') as boost_ratio,
    max(participation) filter (e.group_name = 'suppress') as suppress_ratio,
    max(participation) filter (e.group_name = 'random') as random_ratio,
    max(t.p) filter (e.group_name = 'boost') as p_boost_ratio,
    max(t.p) filter (e.group_name = 'suppress') as p_suppress_ratio
from every as e
left join test as t on
    t.run_id = e.run_id and t.group_name = e.group_name and t.statistic = 'participation_percent'
group by e.printed, e.model, e.revision, e.corpus, e.created_at
order by e.printed, e.created_at, e.model
