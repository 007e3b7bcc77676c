-- ES §4.1, fig. 1: the plateau emerges in training. By series of checkpoints: at the first step it is not there, at the
-- last it is. One row under the last checkpoint.
with curve as (
    select *, row_number() over (partition by layer, preset order by training_step) as first_place,
        row_number() over (partition by layer, preset order by training_step desc) as last_place
    from emergence
    where quantity = 'plateau_p_value' and token_group = 'rare'
)

select
    last.run_id,
    last.preset,
    printf('p %.3f at step %d, %.3f at step %d', first.value, first.training_step, last.value, last.training_step)
        as measured,
    case
        when last.value < 0.01 and first.value >= 0.01 then 'holds'
        when last.value >= 0.01 then 'not found'
        else 'contradicted'
    end as verdict
from curve as last
join curve as first on last.layer = first.layer and last.preset = first.preset and first.first_place = 1
where last.last_place = 1 and last.training_step > first.training_step
