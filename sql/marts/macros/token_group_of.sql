-- token_group_of: rare, common or NULL (neither): a token's side of the line between them.
-- Macro token_group_of(place, is_word, is_elbow, percentile, words, elbow, strict).
-- Example: select token_group_of(12, true, false, 50, true, true, false)
--
-- place is the token's percentile, or the bucket that stands for it (see percentile_bucket); the
-- parameters of the line are as in preset. All marts and macros use this rule.

create or replace macro token_group_of(
    place, is_word, is_elbow, percentile, words, elbow, strict
) as case
    when is_elbow and not elbow then null
    when place < percentile and (is_word or not words) then 'rare'
    when place > percentile or (place = percentile and not strict) then 'common'
end;
