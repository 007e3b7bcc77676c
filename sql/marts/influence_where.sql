-- influence_where: influence with rare and common drawn as you say, variants of the presets.
-- Macro influence_where(run, percentile, occurrences, words, of_input, elbow, strict).
--   run_id           the run
--   token_group      rare or common; the parameters are those of group_where
--   layer            layer of the neuron
--   neuron           its index in the layer; NULL in the one row of a group without a position
--   rank             1 = largest influence, ties to the lower index
--   influence        mean |delta_loss| over the group's positions, nats
--   mean_delta_loss  mean delta_loss over them, nats
--   positions        number of positions in the group
--   reason           why there is no influence; NULL where there is one

create or replace macro influence_where(
    run, percentile,
    occurrences := false, words := false, of_input := false, elbow := true, strict := false
) as table
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

grouped as (
    select token_group, position_id
    from group_where(
        run, percentile,
        occurrences := occurrences, words := words, of_input := of_input, elbow := elbow,
        strict := strict
    )
),

total as (
    select
        g.token_group,
        e.neuron,
        count(*) as positions,
        sum(abs(units(e.delta_loss))) as abs_delta,
        sum(units(e.delta_loss)) as delta
    from store.effect as e
    join chosen using (run_key)
    join grouped as g using (position_id)
    group by g.token_group, e.neuron
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
