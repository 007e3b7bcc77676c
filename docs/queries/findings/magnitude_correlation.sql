-- Beyond the papers: |activations| of boost and of suppress neurons correlate more than those of random neurons.
-- Each group beside random groups of as many neurons; p after Holm within its family (group_test).
with tested as (
    select
        *,
        p_holm < 0.05 and value > reference_mean as is_so,
        p_holm < 0.05 and value < reference_mean as is_opposite
    from group_test
    where
        test = 'control' and token_group = 'rare' and analysis = 'activation_correlation' and statistic = 'mean_correlation'
        and setting like '%space=abs_activation%' and setting like '%comparison=within%'
        and group_name in ('boost', 'suppress')
        and value is not null
)

select
    run_id,
    preset,
    string_agg(
        printf('%s %.3f against %.3f, p %.3f', group_name, round(value, 3) + 0, round(reference_mean, 3) + 0, p_holm), '; ' order by group_name
    ) as measured,
    case
        when count(p_holm) = 0 then 'undecided'
        when bool_and(is_so) then 'holds'
        when bool_or(is_so) and not bool_or(is_opposite) then 'partly'
        when bool_or(is_opposite) then 'contradicted'
        else 'not found'
    end as verdict
from tested
group by run_id, preset
