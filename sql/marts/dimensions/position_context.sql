-- position_context: which pair of a rare and a common token each matched position belongs to.
-- One row per run × position; only of runs with --contexts nc-matched.
--   run_id          the run
--   position_id     the position; its target is the token that is matched
--   pair_id         the pair: one rare token and the common one it is matched to
--   context_id      context of the pair: an occurrence of each, alike in all the columns below
--   token_group     rare or common: which of the two the target is
--   token_id        the target
--   domain          label of the corpus that it is from
--   part_of_speech  of the word that the target is or is in, a universal part of speech
--   sentence_place  of that word in its sentence: beginning, middle or end, by thirds of the words
--   is_whole_word   the target is the whole word
--   syntactic_role  of that word, alike where possible; NULL where the tagger knows none
--   document_id     document that it is from
--
-- See docs/definitions.md, "Tokens"; NC A.6. Which tagger was used, and how many rare tokens were
-- met, is in dim_run.facts.

create or replace view position_context as
select
    run.run_id,
    context.position_id,
    context.pair_id,
    context.context_id,
    context.token_group,
    position.target_token_id as token_id,
    document.domain,
    context.part_of_speech,
    context.sentence_place,
    context.is_whole_word,
    context.syntactic_role,
    position.document_id
from store.position_context as context
join store.run as run using (run_key)
join store.dim_position as position using (run_key, position_id)
left join store.dim_document as document
    on context.run_key = document.run_key and position.document_id = document.document_id;
