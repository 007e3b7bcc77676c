-- influence_where: influence for a line between rare and common that you choose.
-- Macro influence_where(run, percentile, occurrences, words, of_input, elbow, strict).
-- Example: from influence_where('embedded-step6144', 15, elbow := false) limit 5
--   run_id           the run
--   token_group      rare or common; the parameters are those of group_where
--   layer            layer of the neuron
--   neuron           its index in the layer; NULL in the single row of a group without a position
--   rank             1 = largest influence, ties to the lower index
--   influence        mean |delta_loss| over the group's positions, nats
--   mean_delta_loss  mean delta_loss over them, nats
--   positions        number of positions in the group
--   reason           why there is no influence; NULL if there is one
--
-- The sums of agg_effect answer for every cell on one side of the line. For cells that the line
-- cuts (all of them, if input tokens decide), the facts of what is not common are read and
-- subtracted from the cell's sum. Both ways are exact (see exact_avg).

create or replace macro influence_where(
    run, percentile,
    occurrences := false, words := false, of_input := false, elbow := true, strict := false
) as table
with chosen as (
    select r.run_key, r.run_id, r.layer
    from store.run as r
    where
        r.run_key = run_key_of(run)
        and case
            when coalesce(percentile between 0 and 100, false) then true
            else error(
                coalesce(percentile::varchar, 'NULL')
                    || ' is not a percentile. Give one between 0 and 100.'
            )
        end
),

cell as (
    select
        *,
        case
            when is_cut then 'common'
            else token_group_of(bucket, is_word, is_elbow, percentile, words, elbow, strict)
        end as token_group
    from (
        select
            c.cell,
            c.positions,
            c.is_word,
            c.is_elbow,
            case when occurrences then c.occurrence_bucket else c.percentile_bucket end as bucket,
            case when bucket > 50 then 50 else bucket - 2.5 end as bucket_low,
            case when bucket > 50 then 101 else bucket + 2.5 end as bucket_high,
            of_input
            or (
                (bucket > 50 or bucket % 5 > 0)
                and bucket_low < percentile
                and percentile < bucket_high
            ) as is_cut
        from store.effect_cell as c
        join chosen using (run_key)
        where of_input or elbow or not c.is_elbow
    )
),

-- Whole cells: rare ones, common ones, and those that the line cuts, as if they were common.
whole as (
    select
        c.token_group,
        a.neuron,
        sum(c.positions) as positions,
        sum(a.abs_delta_units) as abs_delta,
        sum(a.delta_units) as delta
    from store.agg_effect as a
    join chosen using (run_key)
    join cell as c using (cell)
    where c.token_group is not null
    group by c.token_group, a.neuron
),

-- What of the cut cells is not common: taken away, and added where it is rare.
moved as (
    select
        p.position_id,
        token_group_of(
            case when occurrences then p.occurrence_percentile else p.percentile end,
            p.is_word, p.is_elbow, percentile, words, elbow, strict
        ) as token_group
    from store.position_frequency as p
    join chosen using (run_key)
    where
        not of_input
        and (elbow or not p.is_elbow)
        and case when occurrences then p.occurrence_bucket else p.percentile_bucket end in (
            select c.bucket from cell as c where c.is_cut
        )
    union all
    select p.position_id, g.token_group
    from store.position_frequency as p
    join chosen using (run_key)
    left join group_where(
        run, percentile,
        occurrences := occurrences, words := words, of_input := of_input, elbow := elbow,
        strict := strict
    ) as g using (position_id)
    where of_input
),

part as (
    select
        m.token_group,
        e.neuron,
        count(*) as positions,
        sum(abs(units(e.delta_loss))) as abs_delta,
        sum(units(e.delta_loss)) as delta
    from store.effect as e
    join chosen using (run_key)
    join (select * from moved as m where m.token_group is distinct from 'common') as m
        using (position_id)
    group by m.token_group, e.neuron
),

total as (
    select
        token_group,
        neuron,
        sum(positions) as positions,
        sum(abs_delta) as abs_delta,
        sum(delta) as delta
    from (
        select * from whole
        union all
        select 'common', neuron, -positions, -abs_delta, -delta from part
        union all
        select * from part where token_group = 'rare'
    )
    group by token_group, neuron
    having sum(positions) > 0
),

final as (
    select
        c.run_id,
        s.token_group,
        c.layer,
        t.neuron,
        case when t.neuron is not null then row_number() over (
            partition by s.token_group order by t.abs_delta desc, t.neuron
        ) end::uinteger as rank,
        nats(t.abs_delta) / t.positions as influence,
        nats(t.delta) / t.positions as mean_delta_loss,
        coalesce(t.positions, 0)::uinteger as positions,
        case when t.neuron is null then 'no position in the group' end as reason
    from (values ('rare'), ('common')) as s (token_group)
    cross join chosen as c
    left join total as t using (token_group)
)

select * from final;
