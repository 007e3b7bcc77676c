-- token_group_of: rare, common, or NULL for neither, as a line between them says of a token.
-- Macro token_group_of(place, is_word, is_elbow, percentile, words, elbow, strict).
--
-- place is the token's percentile, or the bucket that stands for it (see percentile_bucket); what
-- draws the line is as in preset. Marts and macros all ask here.

create or replace macro token_group_of(
    place, is_word, is_elbow, percentile, words, elbow, strict
) as case
    when is_elbow and not elbow then null
    when place < percentile and (is_word or not words) then 'rare'
    when place > percentile or (place = percentile and not strict) then 'common'
end;
