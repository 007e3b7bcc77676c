-- layer_profile: how much the layers of a model matter, and which of their curves have a plateau.
-- One row per run × preset × token_group × edit_scope.
--   run_id              the run
--   preset              definition of rare and common (see position_group)
--   token_group         rare or common
--   layer               layer of the neurons
--   layers              number of layers in the set
--   last_run_id         the run of the deepest of them; with edit_scope it names the set
--   edit_scope          where neurons below the last layer are replaced: window or position; the
--                       last layer, where both are the same, is in a set of either
--   model               the run's model
--   revision            its checkpoint
--   ablation            what replaces an activation
--   neurons             N, neurons of the layer
--   positions           number of positions in the group
--   mean_influence      mean influence of the neurons, nats (see neuron_influence)
--   largest_influence   influence of the first of them, nats
--   head_share          what share of all neurons' influence the first b have
--   kappa               κ of power_law_fit
--   kappa_low           lower end of its 95 % interval over windows
--   kappa_high          upper end of the same
--   step                s (see regime_decision, as all that follows)
--   step_low            lower end of its 95 % interval over windows
--   step_high           upper end of the same
--   break_rank          b, last rank of the head
--   break_low           lower end of its 95 % interval over windows
--   break_high          upper end of the same
--   decision            plateau present, absent or undecided
--   p_value             of a step at the head
--   specific_to_rare    number of neurons that are specific to rare tokens (see neuron_specificity,
--                       matching loss), whatever the token_group; NULL: not compared
--   specific_to_common  number of those specific to common tokens
--   reason              why undecided, or why a value is NULL; NULL if none is
--
-- A set is the published runs that agree in everything but the layer, where there are at least two
-- layers: `ingest --layer all` makes one. This is the curve of mean |delta_loss| over all neurons.

create or replace view layer_profile as
with measured as (
    select
        run_key,
        run_id,
        layer,
        model,
        revision,
        ablation,
        neurons,
        identity ->> '$.edit_scope' as edit_scope,
        json_merge_patch(identity::json, '{"layer": null, "edit_scope": null}') as same,
        coalesce(layer + 1 = (facts ->> '$.layers')::int, facts ->> '$.path' = 'moments', false)
            as is_last
    from store.run
    where status = 'published' and identity is not null
),

scope as (
    select distinct model, same, edit_scope from measured where not is_last
),

of_set as (
    select
        measured.* exclude (edit_scope, same, is_last),
        scope.edit_scope,
        count(*) over of_all as layers,
        last(measured.run_id order by measured.layer) over of_all as last_run_id
    from measured
    join scope
        on
            measured.model = scope.model
            and measured.same = scope.same
            and (measured.is_last or measured.edit_scope = scope.edit_scope)
    window of_all as (partition by scope.model, scope.same, scope.edit_scope)
),

member as (
    select * from of_set where layers > 1
),

decision as (
    select * from store.regime_decision where statistic = 'mean_abs' and role = 'all'
),

fit as (
    select * from store.power_law_fit where statistic = 'mean_abs' and role = 'all'
),

of_curve as (
    select
        influence.run_key,
        influence.preset,
        influence.token_group,
        any_value(influence.positions) as positions,
        exact_avg(influence.influence) as mean_influence,
        max(influence.influence) as largest_influence,
        sum(units(influence.influence)) filter (where influence.rank <= decision.break_rank)
        / sum(units(influence.influence)) as head_share
    from store.neuron_influence as influence
    left join decision using (run_key, preset, token_group)
    where influence.run_key in (select run_key from member)
    group by all
),

specific as (
    select
        run_key,
        preset,
        count(*) filter (where specific_to = 'rare') as specific_to_rare,
        count(*) filter (where specific_to = 'common') as specific_to_common
    from store.neuron_specificity
    where matching = 'loss' and neuron is not null
    group by all
),

final as (
    select
        member.run_id,
        fit.preset,
        fit.token_group,
        member.layer,
        member.layers,
        member.last_run_id,
        member.edit_scope,
        member.model,
        member.revision,
        member.ablation,
        member.neurons,
        coalesce(of_curve.positions, 0) as positions,
        of_curve.mean_influence,
        of_curve.largest_influence,
        of_curve.head_share,
        fit.kappa,
        decision.kappa_low,
        decision.kappa_high,
        decision.step,
        decision.step_low,
        decision.step_high,
        decision.break_rank,
        decision.break_low,
        decision.break_high,
        decision.decision,
        decision.p_value,
        specific.specific_to_rare,
        specific.specific_to_common,
        case
            when of_curve.run_key is null then 'the token group has no position'
            when decision.run_key is null
                then concat_ws('; ', fit.reason, 'analyze has not made the decision')
            else decision.reason
        end as reason
    from member
    join fit using (run_key)
    left join of_curve using (run_key, preset, token_group)
    left join decision using (run_key, preset, token_group)
    left join specific using (run_key, preset)
)

select * from final;
