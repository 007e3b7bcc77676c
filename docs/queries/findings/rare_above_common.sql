-- ES, DS: the plateau is one of rare tokens. Step s of the rare curve minus that of the common one.
select
    run_id,
    preset,
    case
        when step is null then reason
        when not determined then 'how the heads differ is not determined'
        else printf('s larger by %+.2f [%+.2f, %+.2f]', step, step_low, step_high)
    end as measured,
    case
        when step is null or not determined then 'undecided'
        when step_low > 0 then 'holds'
        when step_high < 0 then 'contradicted'
        else 'undecided'
    end as verdict
from plateau_difference
