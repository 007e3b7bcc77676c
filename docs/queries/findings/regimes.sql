-- ES §4.1: for rare tokens influence has a plateau, a power law and a rapid decay.
-- Holds where a plateau is present, a power law holds below it, and the last tenth of the ranks lies below the line.
with tail as (
    select run_id, preset, median(deviation) as below
    from neuron_deviation
    join dim_run using (run_id)
    where token_group = 'rare' and rank > 0.9 * neurons
    group by run_id, preset
)

select
    run_id,
    preset,
    coalesce(decision.decision, 'not decided')
        || coalesce(printf(', p %.4f', decision.p_value), '')
        || if(fit.kappa is null, '; no power law', printf('; power law at ranks %d–%d', fit.first_rank, fit.last_rank))
        || coalesce(printf('; last tenth %+.1f', tail.below), '') as measured,
    case
        when decision.decision = 'present' and fit.kappa is not null and tail.below < -0.5 then 'holds'
        when decision.decision = 'present' then 'partly'
        when decision.decision = 'absent' then 'contradicted'
        else 'undecided'
    end as verdict
from regime_decision as decision
join power_law_fit as fit using (run_id, preset, token_group)
left join tail using (run_id, preset)
where token_group = 'rare'
