-- neuron_context: where a neuron helps and hurts most, and the text there.
-- Macro neuron_context(run, neuron_index, contexts := 5, before := 12).
-- Example: from neuron_context('embedded-step6144', 7)
--   run_id       the run
--   layer        layer of the neuron
--   neuron       its index in the layer
--   direction    helps: ablating it raises the loss; hurts: ablating it lowers it
--   place        1 = the largest change in that direction
--   position_id  the position
--   token_group  rare or common in preset es; NULL: neither
--   context      the tokens up to the position in the same window, decoded together; a
--                replacement sign stands for half a character at an end
--   target       the token that follows, whose loss changes (see token_shown)
--   loss         loss of the target without ablation, nats
--   delta_loss   change when the neuron is ablated, nats
--   activation   activation of the neuron at the position
--
-- The texts are the tokenizer's own: a page or a terminal must make them harmless.

create or replace macro neuron_context(run, neuron_index, contexts := 5, before := 12) as table
with chosen as (
    select r.run_key, r.run_id, r.layer, r.tokenizer_key
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

effect as (
    select e.position_id, e.delta_loss, e.activation
    from store.effect as e
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

ranked as (
    select
        e.*,
        row_number() over (order by e.delta_loss desc, e.position_id) as helping,
        row_number() over (order by e.delta_loss, e.position_id) as hurting
    from effect as e
    where e.delta_loss <> 0
),

top as (
    select 'helps' as direction, r.helping as place, r.*
    from ranked as r
    where r.helping <= contexts and r.delta_loss > 0
    union all
    select 'hurts', r.hurting, r.*
    from ranked as r
    where r.hurting <= contexts and r.delta_loss < 0
),

position as (
    select p.position_id, p.window_id, p.input_token_id, p.target_token_id, p.loss
    from store.dim_position as p
    join chosen as c using (run_key)
),

token as (
    select t.token_id, t.text, t.bytes
    from store.dim_token as t
    join chosen as c using (tokenizer_key)
),

before_position as (
    select
        t.position_id,
        string_agg(k.text, '' order by b.position_id) as joined,
        hex(list_reduce(
            list(coalesce(k.bytes, encode(k.text)) order by b.position_id), lambda a, b: a || b
        )) as bytes
    from (select distinct position_id from top) as t
    join position as p using (position_id)
    join position as b
        on b.window_id = p.window_id
        and b.position_id between t.position_id::bigint - before + 1 and t.position_id
    join token as k on k.token_id = b.input_token_id
    group by t.position_id
),

-- Half a character at the beginning, or at the end, becomes a replacement sign (EF BF BD).
whole as (
    select
        b.position_id,
        b.joined,
        regexp_replace(
            regexp_replace(b.bytes, '^(?:[89AB][0-9A-F])+', 'EFBFBD'),
            '(?:[CD][0-9A-F]|E[0-9A-F](?:[89AB][0-9A-F])?|F[0-7](?:[89AB][0-9A-F]){0,2})$',
            'EFBFBD'
        ) as bytes
    from before_position as b
),

context as (
    select w.position_id, coalesce(try(decode(unhex(w.bytes))), w.joined) as context
    from whole as w
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        t.direction,
        t.place,
        t.position_id,
        g.token_group,
        x.context,
        token_shown(k.text, k.bytes) as target,
        p.loss,
        t.delta_loss,
        t.activation
    from top as t
    cross join chosen as c
    join position as p using (position_id)
    join context as x using (position_id)
    left join token as k on k.token_id = p.target_token_id
    left join store.position_group as g
        on g.run_key = c.run_key and g.preset = 'es' and g.position_id = t.position_id
    order by t.direction, t.place
)

select * from final;
