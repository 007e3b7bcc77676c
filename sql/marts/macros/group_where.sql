-- group_where: which positions are rare and common for a line that you choose.
-- Macro group_where(run, percentile, occurrences, words, of_input, elbow, strict).
-- Example: select token_group, count(*) from group_where('embedded-step6144', 15) group by 1
--   run_id       the run
--   token_group  rare: the token lies below the percentile; common: at or above it
--   position_id  the position
--
-- occurrences := true draws the line by occurrence percentile, not by type percentile. words :=
-- true leaves out rare tokens that are not words, elbow := false tokens at the elbow of the
-- frequency curve, strict := true common tokens exactly at the percentile. of_input := true looks
-- at the token at the position, as the papers' code does, not at its target. The relation preset
-- has the parameters that draw each preset's line: es is (run, 50, words := true). As everywhere, a
-- position whose target is a separator or has no count is in no group; with of_input, the same
-- holds for the input.

create or replace macro group_where(
    run, percentile,
    occurrences := false, words := false, of_input := false, elbow := true, strict := false
) as table
with chosen as (
    select r.run_key, r.run_id, r.source_key, r.tokenizer_key, r.separator_token_id
    from store.run as r
    where
        r.run_key = run_key_of(run)
        and case
            when coalesce(percentile between 0 and 100, false) then true
            else error(
                coalesce(percentile::varchar, 'NULL')
                    || ' is not a percentile. Give one between 0 and 100.'
            )
        end
),

position as (
    select
        p.position_id,
        case when of_input then p.input_token_id else p.target_token_id end as token_id
    from store.dim_position as p
    join chosen using (run_key)
    join store.position_frequency as counted using (run_key, position_id)
),

grouped as (
    select
        p.position_id,
        token_group_of(
            case when occurrences then f.occurrence_percentile else f.percentile end,
            t.is_word, f.is_elbow, percentile, words, elbow, strict
        ) as token_group
    from position as p
    cross join chosen as c
    join store.token_frequency as f on c.source_key = f.source_key and p.token_id = f.token_id
    join store.dim_token as t on c.tokenizer_key = t.tokenizer_key and p.token_id = t.token_id
    where f.count > 0 and p.token_id is distinct from c.separator_token_id
),

final as (
    select c.run_id, g.token_group, g.position_id
    from grouped as g
    cross join chosen as c
    where g.token_group is not null
)

select * from final;
