-- neuron_deviation_of: how far each neuron of a curve is above or below its power law.
-- Macro neuron_deviation_of(of_statistic, of_role).
-- Example: from neuron_deviation_of('mean_abs', 'boost') limit 5
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neuron
--   statistic    mean_abs or abs_mean, as asked
--   role         all, boost or suppress, as asked
--   neuron       its index in the layer
--   rank         its rank in this curve
--   influence    by this statistic, nats
--   deviation    δ = log influence − (β − κ log rank), with κ and β of power_law_fit_of; NULL if
--                influence is 0 or there is no power law
--   regime       piece of this curve, as in neuron_deviation
--
-- For mean_abs and all it equals neuron_deviation. In the head δ is measured against an
-- extrapolation.

create or replace macro neuron_deviation_of(of_statistic, of_role) as table
with chosen as (
    select
        run_key,
        preset,
        token_group,
        neuron,
        if(of_statistic = 'mean_abs', influence, abs_mean_delta_loss) as value
    from store.neuron_influence
    where
        of_statistic = one_of(of_statistic, ['mean_abs', 'abs_mean'], 'statistic')
        and one_of(of_role, ['all', 'boost', 'suppress'], 'role') in ('all', role)
),

ranked as (
    select
        *,
        row_number() over (
            partition by run_key, preset, token_group order by value desc, neuron
        ) as place
    from chosen
)

select
    run.run_id,
    ranked.preset,
    ranked.token_group,
    run.layer,
    of_statistic as statistic,
    of_role as role,
    ranked.neuron,
    ranked.place as rank,
    ranked.value as influence,
    if(ranked.value > 0, ln(ranked.value) - (fit.beta - fit.kappa * ln(ranked.place)), null)
        as deviation,
    case
        when ranked.value <= 0 or fit.kappa is null then null
        when ranked.place < fit.first_rank
            and ln(if(ranked.value > 0, ranked.value, null))
            > fit.beta - fit.kappa * ln(ranked.place) then 'plateau'
        when ranked.place < fit.first_rank then 'head'
        when ranked.place <= fit.last_rank then 'power law'
        else 'rapid decay'
    end as regime
from ranked
join store.run as run using (run_key)
left join store.power_law_fit as fit
    on ranked.run_key = fit.run_key
    and ranked.preset = fit.preset
    and ranked.token_group = fit.token_group
    and fit.statistic = of_statistic
    and fit.role = of_role;
