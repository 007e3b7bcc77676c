-- neuron_top_activation: where a neuron is most active, and places along its range, with text.
-- Macro neuron_top_activation(run, neuron_index, contexts := 5, around := 40).
-- Example: from neuron_top_activation('embedded-step6144', 7)
--   run_id        the run
--   layer         layer of the neuron
--   neuron        its index in the layer
--   sample        largest: the most active place of each of the first windows; smallest: the
--                 least active; high, middle, low: drawn from the quantiles 0.9 to 0.99, 0.25 to
--                 0.75, 0.01 to 0.1 of the neuron's activations
--   place         1 = first of the sample, in order of activation (from below for smallest)
--   position_id   the position
--   quantile      share of the run's positions at which the neuron is less active
--   activation    activation of the neuron at the position
--   delta_loss    change of the target's loss there when the neuron is ablated, nats
--   token_group   rare or common in preset es: the target's; NULL: neither
--   at            where in tokens the position's input token stands, from 1; its target is the next
--   tokens        texts of the tokens around the position in its window (see token_shown)
--   activations   activation of the neuron at each of these tokens; NULL: not measured there
--   delta_losses  change of each of these tokens' own loss when the neuron is ablated where it is
--                 predicted, nats; NULL: it was not predicted
--
-- One place per window, so that one passage is not shown five times; two places per quantile band,
-- drawn by a hash of the position, the same at each call. The texts are the tokenizer's own: a page
-- or a terminal must make them harmless.

create or replace macro neuron_top_activation(
    run, neuron_index, contexts := 5, around := 40
) as table
with chosen as (
    select r.run_key, r.run_id, r.layer, r.tokenizer_key
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

effect as (
    select e.position_id, e.activation, e.delta_loss
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

position as (
    select p.position_id, p.window_id, p.input_token_id, p.target_token_id
    from store.dim_position as p
    join chosen as c using (run_key)
),

ranked as (
    select
        e.*,
        p.window_id,
        percent_rank() over (order by e.activation) as quantile,
        row_number() over (
            partition by p.window_id order by e.activation desc, e.position_id
        ) as from_top,
        row_number() over (
            partition by p.window_id order by e.activation, e.position_id
        ) as from_bottom
    from effect as e
    join position as p using (position_id)
),

extreme as (
    select 'largest' as sample, r.*
    from ranked as r
    where r.from_top = 1
    qualify row_number() over (order by r.activation desc, r.position_id) <= contexts
    union all
    select 'smallest', r.*
    from ranked as r
    where r.from_bottom = 1
    qualify row_number() over (order by r.activation, r.position_id) <= contexts
),

drawn as (
    select b.sample, r.*
    from ranked as r
    join (
        values ('high', 0.9, 0.99), ('middle', 0.25, 0.75), ('low', 0.01, 0.1)
    ) as b (sample, first_quantile, last_quantile)
        on r.quantile between b.first_quantile and b.last_quantile
    qualify
        row_number() over (partition by b.sample order by hash(r.position_id), r.position_id) <= 2
),

placed as (
    select
        f.*,
        row_number() over (
            partition by f.sample
            order by if(f.sample = 'smallest', f.activation, -f.activation), f.position_id
        ) as place
    from (from extreme union all by name from drawn) as f
),

-- Every token of the window that is near: inputs, and the last one's target.
near as (
    select distinct
        f.position_id as centre,
        b.position_id::bigint as token_place,
        b.input_token_id as token_id
    from placed as f
    join position as b
        on b.window_id = f.window_id
        and b.position_id between f.position_id::bigint - around and f.position_id::bigint + around
    union all
    select f.position_id, f.last::bigint + 1, b.target_token_id
    from (
        select f.position_id, max(b.position_id) as last
        from placed as f
        join position as b
            on b.window_id = f.window_id
            and b.position_id
            between f.position_id::bigint - around and f.position_id::bigint + around
        group by f.position_id
    ) as f
    join position as b on b.position_id = f.last
),

passage as (
    select
        n.centre as position_id,
        (n.centre::bigint - min(n.token_place) + 1)::uinteger as at,
        list(k.text order by n.token_place) as tokens,
        list(own.activation order by n.token_place) as activations,
        list(before.delta_loss order by n.token_place) as delta_losses
    from near as n
    join position as c on c.position_id = n.centre
    left join position as o on o.position_id = n.token_place and o.window_id = c.window_id
    left join effect as own on own.position_id = o.position_id
    left join position as p on p.position_id = n.token_place - 1 and p.window_id = c.window_id
    left join effect as before on before.position_id = p.position_id
    left join (
        select t.token_id, token_shown(t.text, t.bytes) as text
        from store.dim_token as t
        join chosen as c using (tokenizer_key)
    ) as k on k.token_id = n.token_id
    group by n.centre
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        f.sample,
        f.place,
        f.position_id,
        f.quantile,
        f.activation,
        f.delta_loss,
        g.token_group,
        p.at,
        p.tokens,
        p.activations,
        p.delta_losses
    from placed as f
    cross join chosen as c
    join passage as p using (position_id)
    left join store.position_group as g
        on g.run_key = c.run_key and g.preset = 'es' and g.position_id = f.position_id
    order by list_position(['largest', 'high', 'middle', 'low', 'smallest'], f.sample), f.place
)

select * from final;
