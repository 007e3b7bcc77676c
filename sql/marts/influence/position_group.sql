-- position_group: which positions each preset calls rare and common.
-- One row per run × preset × position in one of the preset's groups.
--   run_id       the run
--   preset       definition of rare and common (see the relation preset)
--   token_group  rare or common
--   position_id  the position; its target decides
--
-- A separator, or a target without a count in the source, is in no group.

create or replace view position_group as
select
    run.run_id,
    grouped.preset,
    grouped.token_group,
    grouped.position_id
from store.position_group as grouped
join store.run as run using (run_key);

insert into store.position_group by name
with drawn as (
    select
        preset.preset,
        token_group_of(
            if(preset.occurrences, graded.occurrence_percentile, graded.percentile),
            graded.is_word, graded.is_elbow,
            preset.percentile, preset.words, preset.elbow, preset.strict
        ) as token_group,
        graded.position_id
    from store.position_frequency as graded
    cross join store.preset as preset
    where graded.run_key = $run_key and preset.percentile is not null
),

matched as (
    select preset.preset, context.token_group, context.position_id
    from store.position_context as context
    cross join store.preset as preset
    where context.run_key = $run_key and preset.percentile is null
),

final as (
    select $run_key as run_key, preset, token_group, position_id
    from (
        select * from drawn
        union all select * from matched
    )
    where token_group is not null
    order by preset, token_group, position_id
)

select * from final;
