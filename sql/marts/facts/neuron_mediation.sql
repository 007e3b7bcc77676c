-- neuron_mediation: how each neuron moves the loss of a token group.
-- One row per run × preset × token_group × neuron.
--   run_id                  the run
--   preset                  definition of rare and common (see position_group)
--   token_group             rare or common
--   layer                   layer of the neuron
--   neuron                  its index in the layer
--   direct_share            mean |direct_delta_loss| / mean |delta_loss|: what remains with the
--                           final norm's scale frozen; it can exceed 1
--   frequency_mediation     1 − mean |frozen_frequency_delta_loss| / mean |delta_loss|: what goes
--                           through the logits' part along log unigram frequency
--   mean_direct_delta_loss  nats
--   mean_delta_entropy      change of the prediction's entropy, nats
--   mean_delta_kl           change of KL(unigram ‖ prediction), nats
--   reason                  why a value is NULL; NULL if none is
--
-- See docs/definitions.md, "Neuron effect", as Stolfo et al. measure it: ratios of means, never
-- means of ratios; NULL where mean |delta_loss| is below 1e-6. The values need `ingest --effects
-- loss,direct,entropy,kl,frequency`.

create or replace view neuron_mediation as
select
    run.run_id,
    mediation.preset,
    mediation.token_group,
    run.layer,
    mediation.neuron,
    mediation.direct_share,
    mediation.frequency_mediation,
    mediation.mean_direct_delta_loss,
    mediation.mean_delta_entropy,
    mediation.mean_delta_kl,
    mediation.reason
from store.neuron_mediation as mediation
join store.run as run using (run_key);

insert into store.neuron_mediation by name
with effect as (
    select
        neuron,
        position_id,
        units(direct_delta_loss) as direct,
        units(frozen_frequency_delta_loss) as frozen,
        units(delta_entropy) as entropy,
        units(delta_kl) as kl
    from store.effect
    where
        run_key = $run_key
        and (
            direct_delta_loss is not null
            or frozen_frequency_delta_loss is not null
            or delta_entropy is not null
            or delta_kl is not null
        )
),

grouped as (
    select preset, token_group, position_id
    from store.position_group
    where run_key = $run_key
),

total as (
    select
        grouped.preset,
        grouped.token_group,
        effect.neuron,
        nats(sum(abs(effect.direct))) as abs_direct,
        nats(sum(effect.direct)) as direct,
        nats(sum(abs(effect.frozen))) as abs_frozen,
        nats(sum(effect.entropy)) as entropy,
        nats(sum(effect.kl)) as kl
    from effect
    join grouped using (position_id)
    group by grouped.preset, grouped.token_group, effect.neuron
),

final as (
    select
        $run_key as run_key,
        i.preset,
        i.token_group,
        i.neuron,
        if(i.influence >= 1e-6, t.abs_direct / i.positions / i.influence, null) as direct_share,
        if(i.influence >= 1e-6, 1 - t.abs_frozen / i.positions / i.influence, null)
            as frequency_mediation,
        t.direct / i.positions as mean_direct_delta_loss,
        t.entropy / i.positions as mean_delta_entropy,
        t.kl / i.positions as mean_delta_kl,
        nullif(
            concat_ws(
                '; ',
                if(i.influence < 1e-6, 'mean |delta_loss| is below 1e-6', null),
                'not asked for with --effects: ' || nullif(
                    concat_ws(
                        ', ',
                        if(t.direct is null, 'direct', null),
                        if(t.entropy is null, 'entropy', null),
                        if(t.kl is null, 'kl', null),
                        if(t.abs_frozen is null, 'frequency', null)
                    ),
                    ''
                )
            ),
            ''
        ) as reason
    from store.neuron_influence as i
    left join total as t using (preset, token_group, neuron)
    where i.run_key = $run_key
    order by i.preset, i.token_group, i.neuron
)

select * from final;
