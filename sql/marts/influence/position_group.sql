-- position_group: which positions each preset calls rare and common.
-- One row per run × preset × position that is in one of the preset's groups.
--   run_id       the run
--   preset       es: type percentile below 50 and a word, or at least 50;
--                nc: occurrence percentile below 50, or at least 50;
--                ds: type percentile below 15, or above, the elbow left out;
--                nc-matched: a rare token and the common one it is matched to, in a run whose
--                positions were searched for them (see position_context)
--   token_group  rare or common
--   position_id  the position; its target decides
--
-- SPEC 1. A separator, or a target without a count in the source, is in no group.

create or replace view position_group as
select
    run.run_id,
    grouped.preset,
    grouped.token_group,
    grouped.position_id
from store.position_group as grouped
join store.run as run using (run_key);

insert into store.position_group by name
with graded as (
    select * from store.position_frequency where run_key = $run_key
),

es as (
    select
        'es' as preset,
        case when percentile >= 50 then 'common' when is_word then 'rare' end as token_group,
        position_id
    from graded
),

nc as (
    select
        'nc' as preset,
        case when occurrence_percentile < 50 then 'rare' else 'common' end as token_group,
        position_id
    from graded
),

ds as (
    select
        'ds' as preset,
        case when percentile < 15 then 'rare' when percentile > 15 then 'common' end as token_group,
        position_id
    from graded
    where not is_elbow
),

nc_matched as (
    select 'nc-matched' as preset, token_group, position_id
    from store.position_context
    where run_key = $run_key
),

final as (
    select $run_key as run_key, preset, token_group, position_id
    from (
        select * from es
        union all select * from nc
        union all select * from ds
        union all select * from nc_matched
    )
    where token_group is not null
    order by preset, token_group, position_id
)

select * from final;
