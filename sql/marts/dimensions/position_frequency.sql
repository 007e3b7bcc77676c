-- position_frequency: how frequent each position's target is in the run's own source.
-- One row per run × position whose target has a count and is not a separator.
--   run_id                 the run
--   position_id            the position
--   window_id              its window
--   token_id               its target
--   frequency              frequency of the target in the run's frequency source
--   percentile             type percentile of the target
--   occurrence_percentile  occurrence percentile of the target
--   is_word                the target is a correctly spelled word
--   starts_word            the target begins a new word
--   is_elbow               the target lies at the elbow of the frequency curve
--
-- Every token group is made from this. A position that is not here belongs to no group.

create or replace view store.position_frequency as
select
    position.run_key,
    run.run_id,
    position.position_id,
    position.window_id,
    position.target_token_id as token_id,
    frequency.count,
    frequency.frequency,
    frequency.percentile,
    frequency.occurrence_percentile,
    percentile_bucket(frequency.percentile) as percentile_bucket,
    percentile_bucket(frequency.occurrence_percentile) as occurrence_bucket,
    token.is_word,
    token.starts_word,
    frequency.is_elbow
from store.dim_position as position
join store.run as run using (run_key)
join store.token_frequency as frequency
    on run.source_key = frequency.source_key and position.target_token_id = frequency.token_id
join store.dim_token as token
    on run.tokenizer_key = token.tokenizer_key and position.target_token_id = token.token_id
where
    frequency.count > 0
    and position.target_token_id is distinct from run.separator_token_id;

create or replace view position_frequency as
select
    run_id,
    position_id,
    window_id,
    token_id,
    frequency,
    percentile,
    occurrence_percentile,
    is_word,
    starts_word,
    is_elbow
from store.position_frequency;
