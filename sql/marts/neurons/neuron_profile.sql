-- neuron_profile: the ranking, and what is known about why each neuron has its place.
-- One row per run × preset × token_group × neuron.
--   run_id                 the run
--   preset                 definition of rare and common (see position_group)
--   token_group            rare or common
--   layer                  layer of the neuron
--   neuron                 its index in the layer
--   rank                   1 = largest influence
--   role                   boost or suppress: the sign of mean_delta_loss
--   settled_role           the same if the text settles it, else mixed (see neuron_sign)
--   influence              mean |delta_loss| over the group's positions, nats
--   mean_delta_loss        mean delta_loss over them, nats
--   mean_delta_low         lower end of its 95 % interval over windows of text
--   mean_delta_high        upper end of the same
--   deviation              δ from the power law, log influence
--   regime                 piece of the curve (see neuron_deviation)
--   mean_activation        mean over the run's positions
--   w_out_norm             length of its row of the output projection
--   null_space_share       share of that row in the least singular directions of the unembedding
--   logit_variance         variance over the vocabulary of its effect on the logits
--   frequency_correlation  correlation of that effect with log unigram frequency
--   direct_share           see neuron_mediation
--   frequency_mediation    see neuron_mediation
--   raises                 the five tokens whose logits its activation raises most
--   lowers                 the five it lowers most
--
-- Joins the measures of docs/definitions.md, "Entropy and frequency neurons", to the ranking. An
-- entropy neuron has a large null_space_share, a small logit_variance and a small direct_share, a
-- frequency neuron a large |frequency_correlation|.

create or replace view neuron_profile as
with moved as (
    select
        run_key,
        neuron,
        list(token_shown(text, bytes) order by rank) filter (direction = 'up') as raises,
        list(token_shown(text, bytes) order by rank) filter (direction = 'down') as lowers
    from store.neuron_token
    join store.run using (run_key)
    join store.dim_token using (tokenizer_key, token_id)
    where rank <= 5
    group by run_key, neuron
)

select
    run.run_id,
    influence.preset,
    influence.token_group,
    run.layer,
    influence.neuron,
    influence.rank,
    influence.role,
    signed.settled_role,
    influence.influence,
    influence.mean_delta_loss,
    signed.mean_delta_low,
    signed.mean_delta_high,
    deviation.deviation,
    deviation.regime,
    neuron.mean_activation,
    neuron.w_out_norm,
    neuron.null_space_share,
    neuron.logit_variance,
    neuron.frequency_correlation,
    mediation.direct_share,
    mediation.frequency_mediation,
    moved.raises,
    moved.lowers
from store.neuron_influence as influence
join store.run as run using (run_key)
join store.dim_neuron as neuron using (run_key, neuron)
join neuron_sign as signed using (run_id, preset, token_group, neuron)
left join store.neuron_deviation as deviation using (run_key, preset, token_group, neuron)
left join store.neuron_mediation as mediation using (run_key, preset, token_group, neuron)
left join moved using (run_key, neuron);
