-- position_context: the pair of rare and common token that each matched position belongs to.
-- One row per run × position; only in runs with --contexts nc-matched.
--   run_id          the run
--   position_id     the position; its target is the matched token
--   pair_id         the pair: one rare token and the common one it is matched with
--   context_id      context within the pair: one occurrence of each token, alike in all the columns
--                   below
--   token_group     rare or common: which of the two the target is
--   token_id        the target
--   domain          label of its corpus
--   part_of_speech  universal part of speech of the word that the target is, or is in
--   sentence_place  place of that word in its sentence: beginning, middle or end, by thirds of the
--                   words
--   is_whole_word   the target is the whole word
--   syntactic_role  syntactic role of that word, alike where possible; NULL if the tagger gives
--                   none
--   document_id     its document
--
-- See docs/definitions.md, "Tokens"; NC A.6. dim_run.facts says which tagger was used and how many
-- rare tokens were met.

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
