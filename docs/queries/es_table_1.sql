-- ES table 1: mean correlation of activations, measured beside printed. Rare positions, preset es.
-- Tested groups have a 95 % interval over windows, random groups the mean ± standard deviation over 100.
with measured as (
    select
        run_id,
        case
            when group_name = 'control' and comparison = 'within' then 'random'
            when group_name = 'control' and comparison = 'groups' then 'random_random'
            when comparison = 'within' then group_name
            when comparison = 'random' then group_name || '_random'
            else group_name || '_' || other_group
        end as quantity,
        case
            when group_name = 'control'
                then printf('%.4f ± %.4f', avg(mean_correlation), stddev(mean_correlation))
            when any_value(low) is null then printf('%.4f', any_value(mean_correlation))
            else printf('%.4f [%.4f, %.4f]', any_value(mean_correlation), any_value(low), any_value(high))
        end as shown
    from activation_correlation
    where
        token_group = 'rare' and space = 'activation'
        and (group_name in ('boost', 'suppress') or (group_name = 'control' and k = 50 and other_k = 50))
    group by run_id, group_name, comparison, other_group
),

test as (
    select run_id, group_name || '_p' as quantity, printf('%.3f', p_holm) as shown
    from group_test
    where
        analysis = 'activation_correlation' and setting = 'space=activation, comparison=within' and test = 'control'
        and token_group = 'rare' and group_name in ('boost', 'suppress')
),

printed as (
    select model, group_name as quantity, printf('%g', value) as shown
    from published_value
    where paper = 'ES' and place = 'table 1' and quantity = 'activation_correlation'
),

every as (
    select 1 as printed, run.model, run.revision, run.corpus, run.created_at, quantity, shown
    from (from measured union all from test) join dim_run as run using (run_id)
    union all
    select 2, model, 'as printed', null, null, quantity, shown from printed
)

select
    model,
    revision,
    corpus,
    max(shown) filter (quantity = 'boost') as boost,
    max(shown) filter (quantity = 'suppress') as suppress,
    max(shown) filter (quantity = 'random') as random,
    max(shown) filter (quantity = 'boost_suppress') as boost_suppress,
    max(shown) filter (quantity = 'boost_random') as boost_random,
    max(shown) filter (quantity = 'suppress_random') as suppress_random,
    max(shown) filter (quantity = 'random_random') as random_random,
    max(shown) filter (quantity = 'boost_p') as p_boost,
    max(shown) filter (quantity = 'suppress_p') as p_suppress
from every
group by printed, model, revision, corpus, created_at
order by printed, created_at, model
