-- neuron_deviation: how far each neuron is above or below the power law, and on which piece.
-- One row per run × preset × token_group × neuron.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neuron
--   neuron       its index in the layer
--   rank         its rank by influence
--   deviation    δ = log influence − (β − κ log rank), with power_law_fit's κ and β; NULL if
--                influence is 0 or there is no power law
--   local_slope  least-squares slope of log influence over the ranks within ± 0.25 in log rank;
--                NULL with fewer than 5 of them
--   regime       power law or rapid decay: in or after power_law_fit's window; before it plateau if
--                the neuron is above the power law, else head; NULL if influence is 0 or there is
--                no power law
--
-- The regime here is a label by the fit's breaks; regime_decision decides whether there is a
-- plateau at all. A head below the line is not a plateau: the papers' plateau is influence that the
-- power law underestimates (δ > 0). In the head δ is measured against an extrapolation.

create or replace view neuron_deviation as
select
    run.run_id,
    deviation.preset,
    deviation.token_group,
    run.layer,
    deviation.neuron,
    deviation.rank,
    deviation.deviation,
    deviation.local_slope,
    deviation.regime
from store.neuron_deviation as deviation
join store.run as run using (run_key);

insert into store.neuron_deviation by name
with influence as (
    select preset, token_group, neuron, rank, influence
    from store.neuron_influence
    where run_key = $run_key
),

fit as (
    select preset, token_group, kappa, beta, first_rank, last_rank
    from store.power_law_fit
    where run_key = $run_key and statistic = 'mean_abs' and role = 'all'
),

curve as (
    select
        preset,
        token_group,
        rank,
        ln(rank) as ln_rank,
        ln(influence) as ln_influence
    from influence
    where influence > 0
),

slope as (
    select
        preset,
        token_group,
        rank,
        ln_rank,
        ln_influence,
        case when count(*) over near >= 5 then regr_slope(ln_influence, ln_rank) over near end
            as local_slope
    from curve
    window near as (
        partition by preset, token_group
        order by ln_rank range between 0.25 preceding and 0.25 following
    )
),

final as (
    select
        $run_key as run_key,
        preset,
        token_group,
        influence.neuron,
        rank,
        slope.ln_influence - (fit.beta - fit.kappa * slope.ln_rank) as deviation,
        slope.local_slope,
        case
            when slope.rank is null or fit.kappa is null then null
            when rank < fit.first_rank and deviation > 0 then 'plateau'
            when rank < fit.first_rank then 'head'
            when rank <= fit.last_rank then 'power law'
            else 'rapid decay'
        end as regime
    from influence
    left join slope using (preset, token_group, rank)
    left join fit using (preset, token_group)
    order by preset, token_group, rank
)

select * from final;
