-- agg_attributed_effect: first-order estimates of effects, summed over the cells of agg_effect.
-- Macro agg_attributed_effect(run).
--   run_id              the run
--   layer               layer of the neuron
--   neuron              its index in the layer
--   window_id           as in agg_effect
--   percentile_bucket   as in agg_effect
--   occurrence_bucket   as in agg_effect
--   is_word             as in agg_effect
--   is_elbow            as in agg_effect
--   matched_group       as in agg_effect
--   positions           number of positions
--   abs_attributed_sum  Σ |attributed_delta_loss|, nats
--   attributed_sum      Σ attributed_delta_loss, nats
--
-- No row where the run has no attributed_delta_loss. It reads every fact of the run; sums are exact
-- (see exact_avg).

create or replace macro agg_attributed_effect(run) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where r.run_id = run and list_contains(r.effects, 'attribution')
),

cell as (
    select c.*
    from store.effect_cell as c
    where c.run_key = (select k.run_key from chosen as k)
),

graded as (
    select
        p.position_id,
        coalesce(x.pair_id, p.window_id) as window_id,
        p.percentile_bucket,
        p.occurrence_bucket,
        p.is_word,
        p.is_elbow,
        x.token_group as matched_group
    from store.position_frequency as p
    left join store.position_context as x using (run_key, position_id)
    where p.run_key = (select k.run_key from chosen as k)
),

member as (
    select g.position_id, c.cell
    from graded as g
    join cell as c
        on
            g.window_id = c.window_id
            and g.percentile_bucket = c.percentile_bucket
            and g.occurrence_bucket = c.occurrence_bucket
            and g.is_word = c.is_word
            and g.is_elbow = c.is_elbow
            and g.matched_group is not distinct from c.matched_group
),

summed as (
    select
        e.neuron,
        m.cell,
        sum(abs(units(e.attributed_delta_loss))) as abs_attributed_units,
        sum(units(e.attributed_delta_loss)) as attributed_units
    from store.effect as e
    join member as m using (position_id)
    where
        e.run_key = (select k.run_key from chosen as k)
        and e.attributed_delta_loss is not null
    group by e.neuron, m.cell
),

final as (
    select
        k.run_id,
        k.layer,
        s.neuron,
        c.window_id,
        c.percentile_bucket,
        c.occurrence_bucket,
        c.is_word,
        c.is_elbow,
        c.matched_group,
        c.positions,
        nats(s.abs_attributed_units) as abs_attributed_sum,
        nats(s.attributed_units) as attributed_sum
    from summed as s
    join cell as c using (cell)
    cross join chosen as k
)

select * from final;
