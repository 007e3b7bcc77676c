-- Claims about groups of neurons (ES §4.2 and §4.3, tables 1 to 4, and two beyond the papers): are boost and suppress
-- neurons more (sign 1) or less (sign −1) so than random groups of as many? p after Holm within its family (group_test).
-- holds: both are, at 5 %; partly: one is, and the other is not the other way round; contradicted: one is the other way
-- round; not found: neither is told from random groups.
with claim as (
    select *
    from (
        values
            ('activation_correlation', 'mean_correlation', 'space=activation, comparison=within', 1, 3),
            ('magnitude_correlation', 'mean_correlation', 'space=abs_activation, comparison=within', 1, 3),
            ('effective_dimension', 'interpolated_dimension', '%', -1, 1),
            ('weight_cosine', 'mean_cosine', 'space=w_out, comparison=within', 1, 3),
            ('gate_cosine', 'mean_cosine', 'space=w_in, comparison=within', 1, 3),
            ('hill_alpha', 'alpha', 'matrix=w_out, standardised=False, rule=fix_finger', -1, 2)
    ) as listed (claim, statistic, setting, sign, digits)
),

tested as (
    select
        claim.claim,
        test.run_id,
        test.preset,
        test.group_name,
        test.p_holm,
        round(test.value, claim.digits) + 0 as value,
        round(test.reference_mean, claim.digits) + 0 as reference,
        test.p_holm < 0.05 and claim.sign * (test.value - test.reference_mean) > 0 as is_so,
        test.p_holm < 0.05 and claim.sign * (test.value - test.reference_mean) < 0 as is_opposite
    from group_test as test
    join claim on test.statistic = claim.statistic and test.setting like claim.setting
    where
        test.test = 'control' and test.token_group = 'rare' and test.group_name in ('boost', 'suppress')
        and test.value is not null
)

select
    run_id,
    preset,
    string_agg(printf('%s %g against %g, p %.3f', group_name, value, reference, p_holm), '; ' order by group_name)
        as measured,
    case
        when count(p_holm) = 0 then 'undecided'
        when bool_and(is_so) then 'holds'
        when bool_or(is_so) and not bool_or(is_opposite) then 'partly'
        when bool_or(is_opposite) then 'contradicted'
        else 'not found'
    end as verdict,
    claim
from tested
group by claim, run_id, preset
