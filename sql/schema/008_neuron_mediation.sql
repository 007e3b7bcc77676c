-- How a neuron's effect comes about, from the further effects that were asked for.
create table store.neuron_mediation (
    run_key usmallint not null,
    preset varchar not null,
    token_group varchar not null,
    neuron usmallint not null,
    direct_share double,
    frequency_mediation double,
    mean_direct_delta_loss double,
    mean_delta_entropy double,
    mean_delta_kl double,
    reason varchar
);

-- Runs that are there already get theirs, as publishing gives it (sql/marts/facts/neuron_mediation.sql).
insert into store.neuron_mediation
with effect as (
    select
        run_key,
        neuron,
        position_id,
        (direct_delta_loss::double * 1099511627776)::bigint as direct,
        (frozen_frequency_delta_loss::double * 1099511627776)::bigint as frozen,
        (delta_entropy::double * 1099511627776)::bigint as entropy,
        (delta_kl::double * 1099511627776)::bigint as kl
    from store.fct_effect
    where
        direct_delta_loss is not null
        or frozen_frequency_delta_loss is not null
        or delta_entropy is not null
        or delta_kl is not null
),

total as (
    select
        grouped.run_key,
        grouped.preset,
        grouped.token_group,
        effect.neuron,
        sum(abs(effect.direct))::double / 1099511627776 as abs_direct,
        sum(effect.direct)::double / 1099511627776 as direct,
        sum(abs(effect.frozen))::double / 1099511627776 as abs_frozen,
        sum(effect.entropy)::double / 1099511627776 as entropy,
        sum(effect.kl)::double / 1099511627776 as kl
    from effect
    join store.position_group as grouped using (run_key, position_id)
    group by grouped.run_key, grouped.preset, grouped.token_group, effect.neuron
)

select
    i.run_key,
    i.preset,
    i.token_group,
    i.neuron,
    if(i.influence >= 1e-6, t.abs_direct / i.positions / i.influence, null),
    if(i.influence >= 1e-6, 1 - t.abs_frozen / i.positions / i.influence, null),
    t.direct / i.positions,
    t.entropy / i.positions,
    t.kl / i.positions,
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
    )
from store.neuron_influence as i
left join total as t using (run_key, preset, token_group, neuron)
order by i.run_key, i.preset, i.token_group, i.neuron;
