-- NC table 2: without the heads of all layers the plateau's activations change by −42 to −45 %; here, without all heads
-- of the last layer that was edited. Holds where the interval of the mean relative change reaches into −50 to −42 %;
-- undecided where it is wider than the change could be, since a neuron's mean is near 0. pooled: Σ change / Σ |mean|.
with one as (
    select *, row_number() over (partition by run_id, preset order by group_name desc, attention_layer desc) as place
    from head_ablation
    where target = 'layer' and token_group = 'rare' and group_name in ('plateau', 'boost')
)

select
    run_id,
    preset,
    printf('%s %+.0f %% [%+.0f, %+.0f], pooled %+.0f %%, d %+.2f', group_name, 100 * activation_change, 100 * change_low,
        100 * change_high, 100 * pooled_change, effect_size) as measured,
    case
        when activation_change is null or change_high - change_low > 1 then 'undecided'
        when change_low <= -0.42 and change_high >= -0.5 then 'holds'
        else 'contradicted'
    end as verdict
from one
where place = 1
