-- ES §4.1, NC §3: for common tokens there is no plateau.
select
    run_id,
    preset,
    coalesce(decision, 'not decided')
        || coalesce(printf(', p %.4f', p_value), '')
        || coalesce(printf(', power %.2f', power), '')
        || if(decision = 'present', printf(', s %.2f [%.2f, %.2f]', step, step_low, step_high), '') as measured,
    case decision when 'absent' then 'holds' when 'present' then 'contradicted' else 'undecided' end as verdict
from regime_decision
where token_group = 'common'
