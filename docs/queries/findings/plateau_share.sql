-- ES §4.1, DS §4.1: the plateau is 1.7 % (ES) or about 1 % (DS) of the neurons.
-- Holds where a plateau is present and its interval reaches into 1 to 1.7 %.
select
    run_id,
    preset,
    case
        when decision.decision is distinct from 'present' then 'no plateau present'
        when not decision.break_determined then 'its end is not determined'
        else printf(
            '%d neurons, %.1f %% [%.1f, %.1f]', decision.break_rank, 100 * decision.break_rank / run.neurons,
            100 * decision.break_low / run.neurons, 100 * decision.break_high / run.neurons
        )
    end as measured,
    case
        when decision.decision is distinct from 'present' or not decision.break_determined then 'undecided'
        when decision.break_low / run.neurons <= 0.017 and decision.break_high / run.neurons >= 0.01 then 'holds'
        else 'contradicted'
    end as verdict
from regime_decision as decision
join dim_run as run using (run_id)
where token_group = 'rare'
