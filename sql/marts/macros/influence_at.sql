-- influence_at: influence with the line between rare and common drawn anywhere.
-- Macro influence_at(run, percentile, occurrences := false, words := false).
-- Example: from influence_at('embedded-step6144', 15) order by rank limit 5
--   run_id           the run
--   token_group      rare: targets below the percentile; common: at or above it
--   layer            layer of the neuron
--   neuron           its index in the layer
--   rank             1 = largest influence, ties to the lower index
--   influence        mean |delta_loss| over the group's positions, nats
--   mean_delta_loss  mean delta_loss over them, nats
--   positions        number of positions in the group
--
-- By type percentile, or by occurrence percentile where occurrences is true; words leaves out rare
-- targets that are not words (so percentile 50 with words is preset es, with occurrences nc). See
-- influence_where for input tokens, the elbow, how it is computed and why a group is empty.

create or replace macro influence_at(run, percentile, occurrences := false, words := false) as table
select run_id, token_group, layer, neuron, rank, influence, mean_delta_loss, positions
from influence_where(run, percentile, occurrences := occurrences, words := words)
where neuron is not null;
