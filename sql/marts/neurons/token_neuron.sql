-- token_neuron: which neurons carry a token.
-- Macro token_neuron(run, token_text).
-- Example: from token_neuron('embedded-step6144', 'value') where rank <= 5
--   run_id           the run
--   token_id         the token
--   text             its text: token_text, with or without a leading space
--   positions        how often it is the target in the run
--   windows          in how many windows of text that is
--   layer            layer of the neuron
--   neuron           its index in the layer
--   rank             1 = the largest influence on the token, ties to the lower index
--   influence        mean |delta_loss| over these positions, nats
--   mean_delta_loss  mean delta_loss over them, nats: above 0 the neuron helps the token
--   mean_delta_low   lower end of its 95 % interval over windows; NULL: in fewer than three windows
--   mean_delta_high  upper end of the same
--   mean_elsewhere   mean |delta_loss| over all other positions, nats
--   times_elsewhere  influence divided by mean_elsewhere: how much the neuron is about this token
--
-- No row for a token that the run never predicts. The interval is Student's over the windows' sums
-- (as of a ratio estimator): windows are taken as independent, the positions in one are not.

create or replace macro token_neuron(run, token_text) as table
with chosen as (
    select r.run_key, r.run_id, r.layer, r.tokenizer_key
    from store.run as r
    where r.run_key = run_key_of(run)
),

token as (
    select t.token_id, t.text
    from store.dim_token as t
    join chosen as c using (tokenizer_key)
    where t.text in (token_text, ' ' || token_text)
),

place as (
    select p.position_id, p.window_id, t.token_id, t.text
    from store.dim_position as p
    join chosen as c using (run_key)
    join token as t on t.token_id = p.target_token_id
),

-- Whole numbers of 2^-40 nats (see units): the same sums in any order.
total as (
    select
        e.neuron,
        sum(units(abs(e.delta_loss)))::double as size,
        count(*) as positions
    from store.effect as e
    where e.run_key = (select c.run_key from chosen as c)
    group by e.neuron
),

by_window as (
    select
        p.token_id,
        any_value(p.text) as text,
        p.window_id,
        e.neuron,
        count(*) as n,
        sum(units(abs(e.delta_loss)))::double as size,
        sum(units(e.delta_loss))::double as net
    from store.effect as e
    join place as p using (position_id)
    where e.run_key = (select c.run_key from chosen as c)
    group by p.token_id, p.window_id, e.neuron
),

measured as (
    select
        b.token_id,
        any_value(b.text) as text,
        b.neuron,
        sum(b.n) as positions,
        count(*) as windows,
        sum(b.size) as size,
        sum(b.net) as net,
        sum(b.net) / sum(b.n) as mean,
        sum(b.net * b.net order by b.window_id) as net_net,
        sum(b.net * b.n order by b.window_id) as net_n,
        sum(b.n * b.n) as n_n
    from by_window as b
    group by b.token_id, b.neuron
),

-- Variance of Σ net / Σ n over windows: that of net − mean · n, divided by (Σ n)².
spread as (
    select
        m.*,
        student_975(m.windows - 1) * sqrt(
            greatest(0, m.net_net - 2 * m.mean * m.net_n + m.mean * m.mean * m.n_n)
            * m.windows / (m.windows - 1)
        ) / m.positions as half_width
    from measured as m
),

final as (
    select
        c.run_id,
        s.token_id,
        s.text,
        s.positions::uinteger as positions,
        s.windows::uinteger as windows,
        c.layer,
        s.neuron,
        row_number() over (
            partition by s.token_id order by s.size desc, s.neuron
        )::uinteger as rank,
        nats(s.size) / s.positions as influence,
        nats(s.mean) as mean_delta_loss,
        if(s.windows < 3, null, nats(s.mean - s.half_width)) as mean_delta_low,
        if(s.windows < 3, null, nats(s.mean + s.half_width)) as mean_delta_high,
        nats(t.size - s.size) / nullif(t.positions - s.positions, 0) as mean_elsewhere,
        influence / nullif(mean_elsewhere, 0) as times_elsewhere
    from spread as s
    join total as t using (neuron)
    cross join chosen as c
    order by s.token_id, rank
)

select * from final;
