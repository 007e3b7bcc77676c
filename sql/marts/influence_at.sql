-- influence_at: influence with the line between rare and common drawn anywhere.
-- Macro influence_at(run, percentile, occurrences := false, words := false).
--   run_id           the run
--   token_group      rare: targets below the percentile; common: at or above it
--   layer            layer of the neuron
--   neuron           its index in the layer
--   rank             1 = largest influence, ties to the lower index
--   influence        mean |delta_loss| over the group's positions, nats
--   mean_delta_loss  mean delta_loss over them, nats
--   positions        number of positions in the group
--
-- By type percentile, or by occurrence percentile where occurrences is true; words leaves rare
-- targets out that are no words (so percentile 50 with words is preset es, with occurrences nc).
-- For input tokens, the elbow, and the reason of an empty group see influence_where. The sums of
-- agg_effect give the answer for every cell that lies on one side of the line; of those that it
-- cuts, the facts of the rarer side are read and taken from the cell's sum. Both are exact.

create or replace macro influence_at(run, percentile, occurrences := false, words := false) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where
        r.run_id = run
        and case
            when coalesce(percentile between 0 and 100, false) then true
            else error(
                coalesce(percentile::varchar, 'NULL') || ' is no percentile; they go from 0 to 100'
            )
        end
),

cell as (
    select
        *,
        bucket < percentile as is_rare,
        (bucket > 50 or bucket % 5 > 0) and bucket_low < percentile and percentile < bucket_high
            as is_cut
    from (
        select
            c.cell,
            c.positions,
            c.is_word,
            case when occurrences then c.occurrence_bucket else c.percentile_bucket end as bucket,
            case when bucket > 50 then 50 else bucket - 2.5 end as bucket_low,
            case when bucket > 50 then 101 else bucket + 2.5 end as bucket_high
        from store.effect_cell as c
        join chosen using (run_key)
    )
),

-- Whole cells: rare ones, common ones, and those that the line cuts, as if they were common.
whole as (
    select
        c.is_rare and not c.is_cut as is_rare,
        a.neuron,
        sum(c.positions) as positions,
        sum(a.abs_delta_units) as abs_delta,
        sum(a.delta_units) as delta
    from store.agg_effect as a
    join chosen using (run_key)
    join cell as c using (cell)
    where c.is_cut or not c.is_rare or c.is_word or not words
    group by 1, a.neuron
),

moved as (
    select p.position_id, p.is_word
    from store.position_frequency as p
    join chosen using (run_key)
    where
        case when occurrences then p.occurrence_percentile else p.percentile end < percentile
        and case when occurrences then p.occurrence_bucket else p.percentile_bucket end in (
            select c.bucket from cell as c where c.is_cut
        )
),

part as (
    select
        m.is_word,
        e.neuron,
        count(*) as positions,
        sum(abs(units(e.delta_loss))) as abs_delta,
        sum(units(e.delta_loss)) as delta
    from store.effect as e
    join chosen using (run_key)
    join moved as m using (position_id)
    group by m.is_word, e.neuron
),

total as (
    select
        is_rare,
        neuron,
        sum(positions) as positions,
        sum(abs_delta) as abs_delta,
        sum(delta) as delta
    from (
        select * from whole
        union all
        select false, neuron, -positions, -abs_delta, -delta from part
        union all
        select true, neuron, positions, abs_delta, delta from part where is_word or not words
    )
    group by is_rare, neuron
    having sum(positions) > 0
),

final as (
    select
        c.run_id,
        case when t.is_rare then 'rare' else 'common' end as token_group,
        c.layer,
        t.neuron,
        row_number() over (
            partition by t.is_rare order by t.abs_delta desc, t.neuron
        )::uinteger as rank,
        nats(t.abs_delta) / t.positions as influence,
        nats(t.delta) / t.positions as mean_delta_loss,
        t.positions::uinteger as positions
    from total as t
    cross join chosen as c
)

select * from final;
