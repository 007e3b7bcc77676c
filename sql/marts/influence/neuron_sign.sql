-- neuron_sign: which way each neuron works on a token group, and whether the text settles it.
-- One row per run × preset × token_group × neuron.
--   run_id           the run
--   preset           definition of rare and common (see position_group)
--   token_group      rare or common
--   layer            layer of the neuron
--   neuron           its index in the layer
--   mean_delta_loss  mean delta_loss over the group's positions, nats
--   mean_delta_low   lower end of its 95 % interval over windows of text
--   mean_delta_high  upper end of the same
--   role             the sign of mean_delta_loss: boost or suppress; NULL at 0
--   settled_role     role if the whole interval is on its side of 0; mixed if the interval holds 0;
--                    NULL without an interval or a role
--   reason           why settled_role is NULL; NULL if it is not
--
-- This is the only rule for mixed: whatever shows a role to a reader, and the groups of settled
-- signs, read it here. The intervals are those of influence_interval.

create or replace view neuron_sign as
with measured as (
    select run_key, preset, token_group, neuron, low, high, reason
    from store.influence_interval
    where quantity = 'mean_delta_loss'
),

-- A curve without intervals of its neurons has one row per quantity, which says why.
curve as (
    select run_key, preset, token_group, any_value(reason) as reason
    from store.influence_interval
    where quantity = 'head_rank' and neuron is null
    group by run_key, preset, token_group
)

select
    run.run_id,
    influence.preset,
    influence.token_group,
    run.layer,
    influence.neuron,
    influence.mean_delta_loss,
    measured.low as mean_delta_low,
    measured.high as mean_delta_high,
    influence.role,
    case
        when influence.role is null or measured.low is null or measured.high is null then null
        when influence.role = 'boost' and measured.low > 0 then 'boost'
        when influence.role = 'suppress' and measured.high < 0 then 'suppress'
        else 'mixed'
    end as settled_role,
    case
        when settled_role is not null then null
        when influence.role is null then 'mean_delta_loss is 0'
        else coalesce(measured.reason, curve.reason, 'no interval is stored: `analyze` computes it')
    end as reason
from store.neuron_influence as influence
join store.run as run using (run_key)
left join measured using (run_key, preset, token_group, neuron)
left join curve using (run_key, preset, token_group);
