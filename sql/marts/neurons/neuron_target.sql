-- neuron_target: what a neuron does to each token to be predicted.
-- Macro neuron_target(run, neuron_index, fewest := 5).
-- Example: from neuron_target('embedded-step6144', 7, fewest := 2) limit 5
--   run_id           the run
--   layer            layer of the neuron
--   neuron           its index in the layer
--   token_id         the target
--   text             the decoded token (see token_shown)
--   positions        positions where it is the target; at least `fewest`
--   mean_delta_loss  mean change of its loss when the neuron is ablated, nats: above 0 the neuron
--                    helps
--   sd_delta_loss    standard deviation of the change over these positions
--   mean_activation  mean activation of the neuron at these positions

create or replace macro neuron_target(run, neuron_index, fewest := 5) as table
with chosen as (
    select r.run_key, r.run_id, r.layer, r.tokenizer_key
    from store.run as r
    where r.run_key = run_key_with(run, neuron_index)
),

effect as (
    select p.target_token_id as token_id, e.position_id, e.delta_loss, e.activation
    from store.effect as e
    join store.dim_position as p using (run_key, position_id)
    where
        e.run_key = (select c.run_key from chosen as c)
        and e.neuron = neuron_index
),

final as (
    select
        c.run_id,
        c.layer,
        neuron_index as neuron,
        e.token_id,
        any_value(token_shown(t.text, t.bytes)) as text,
        count(*)::uinteger as positions,
        avg(e.delta_loss order by e.position_id) as mean_delta_loss,
        stddev(e.delta_loss order by e.position_id) as sd_delta_loss,
        avg(e.activation order by e.position_id) as mean_activation
    from effect as e
    cross join chosen as c
    left join store.dim_token as t on t.tokenizer_key = c.tokenizer_key and t.token_id = e.token_id
    group by c.run_id, c.layer, e.token_id
    having count(*) >= any_value(fewest)
    order by mean_delta_loss desc, e.token_id
)

select * from final;
