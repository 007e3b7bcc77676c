-- ES §4.1: the curve of rare tokens breaks near ln rank 5.
select
    run_id,
    preset,
    if(
        slope_break_log_rank is null, 'not tested',
        printf('ln rank %.1f [%.1f, %.1f], p %.3f', slope_break_log_rank, slope_break_low, slope_break_high,
            slope_break_p_value)
    ) as measured,
    case
        when slope_break_p_value is null then 'undecided'
        when slope_breaks_near_5 then 'holds'
        when slope_break_p_value < 0.01 then 'contradicted'
        else 'not found'
    end as verdict
from regime_decision
where token_group = 'rare'
