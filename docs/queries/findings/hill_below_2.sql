-- ES §2.2, DS §4.5: Hill's α of the plateau's output weights is below 2. The group is plateau, or boost where there is
-- no plateau group; rule fix-finger. Holds where the interval is below 2.
with one as (
    select *, row_number() over (partition by run_id, preset order by group_name desc) as place
    from weight_spectrum
    where
        matrix = 'w_out' and not standardised and rule = 'fix_finger' and draw = 0 and token_group = 'rare'
        and group_name in ('plateau', 'boost') and alpha is not null
)

select
    run_id,
    preset,
    printf('%s α %.2f [%.2f, %.2f]', group_name, alpha, alpha_low, alpha_high) as measured,
    case when alpha_high < 2 then 'holds' when alpha_low > 2 then 'contradicted' else 'undecided' end as verdict
from one
where place = 1
