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
-- For input tokens, the elbow, and the reason of an empty group see influence_where. At a multiple
-- of 5 up to 50 the sums of agg_effect give the answer, elsewhere the facts; both are exact.

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

asked as (
    select percentile <= 50 and percentile = 5 * floor(percentile / 5) as from_cells
),

graded as (
    select
        p.position_id,
        case when occurrences then p.occurrence_percentile else p.percentile end < percentile
            as is_rare,
        p.is_word
    from store.position_frequency as p
    join chosen using (run_key)
    where not (select from_cells from asked)
),

grouped as (
    select position_id, is_rare from graded where not is_rare or is_word or not words
),

cell as (
    select
        c.cell,
        c.positions,
        case when occurrences then c.occurrence_bucket else c.percentile_bucket end < percentile
            as is_rare,
        c.is_word
    from store.effect_cell as c
    join chosen using (run_key)
    where (select from_cells from asked)
),

grouped_cell as (
    select cell, positions, is_rare from cell where not is_rare or is_word or not words
),

total as (
    select
        g.is_rare,
        a.neuron,
        sum(g.positions) as positions,
        sum(a.abs_delta_units) as abs_delta,
        sum(a.delta_units) as delta
    from store.agg_effect as a
    join chosen using (run_key)
    join grouped_cell as g using (cell)
    group by g.is_rare, a.neuron
    union all
    select
        g.is_rare,
        e.neuron,
        count(*) as positions,
        sum(abs(units(e.delta_loss))) as abs_delta,
        sum(units(e.delta_loss)) as delta
    from store.fct_effect as e
    join chosen using (run_key)
    join grouped as g using (position_id)
    group by g.is_rare, e.neuron
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
