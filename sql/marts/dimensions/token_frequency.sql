-- token_frequency: how often each token occurs in a frequency source, and its rank there.
-- One row per tokenizer × frequency source × token.
--   tokenizer_id           the tokenizer
--   frequency_source_id    the frequency source; stored once for all runs that share it
--   token_id               number of the token
--   count                  occurrences in the source
--   frequency              count / all counts
--   percentile             100 · types with a smaller count / (types − 1); NULL if count is 0
--   occurrence_percentile  100 · occurrences of types with a smaller count / (occurrences − 1);
--                          NULL if count is 0
--   rank                   1 = most frequent, ties to the lower token_id; NULL if count is 0
--   is_elbow               within one percentile point of the elbow of the log-rank/log-count curve
--
-- See docs/definitions.md, "Tokens". Types are tokens with a count above 0; tied counts share the
-- lowest percentile. The elbow is the type furthest from the chord between the curve's ends
-- (Kneedle: scaling both axes to 0…1 does not move the maximum, nor does measuring along the count
-- axis).

create or replace view token_frequency as
select
    tokenizer.tokenizer_id,
    source.frequency_source_id,
    frequency.token_id,
    frequency.count,
    frequency.frequency,
    frequency.percentile,
    frequency.occurrence_percentile,
    frequency.rank,
    frequency.is_elbow
from store.token_frequency as frequency
join store.frequency_source as source using (source_key)
join store.tokenizer as tokenizer using (tokenizer_key);

-- By frequency source the type at the elbow, of which `is_elbow` tells the types around it.
create or replace view store.elbow as
with ends as (
    select source_key, max(count) as most, min(count) as least, max(rank) as types
    from store.token_frequency
    where rank is not null
    group by source_key
),

final as (
    select frequency.source_key, frequency.rank, frequency.percentile, frequency.count
    from store.token_frequency as frequency
    join ends using (source_key)
    where frequency.rank is not null and ends.types > 1 and ends.least < ends.most
    qualify row_number() over (
        partition by frequency.source_key
        order by
            elbow_distance(frequency.count, frequency.rank, ends.most, ends.least, ends.types) desc,
            frequency.rank
    ) = 1
)

select * from final;

insert into store.token_frequency by name
with counted as (
    select token_id, count from staging.token_frequency
),

tie as (
    select count, count(*) as types
    from counted
    where count > 0
    group by count
),

placed as (
    select
        count,
        coalesce(sum(types) over smaller, 0) as smaller_types,
        coalesce(sum(types * count) over smaller, 0) as smaller_occurrences,
        sum(types) over () as all_types,
        sum(types * count) over () as occurrences
    from tie
    window smaller as (order by count rows between unbounded preceding and 1 preceding)
),

graded as (
    select
        count,
        count::double / occurrences as frequency,
        100 * smaller_types::double / greatest(all_types - 1, 1) as percentile,
        100 * smaller_occurrences::double / greatest(occurrences - 1, 1) as occurrence_percentile
    from placed
),

ranked as (
    select
        counted.token_id,
        graded.*,
        row_number() over (order by counted.count desc, counted.token_id) as rank
    from counted
    join graded using (count)
),

ends as (
    select max(count) as most, min(count) as least, max(rank) as types from ranked
),

distance as (
    select
        ranked.percentile,
        ranked.rank,
        elbow_distance(ranked.count, ranked.rank, ends.most, ends.least, ends.types) as from_chord
    from ranked, ends
    where ends.types > 1 and ends.least < ends.most
),

elbow as (
    select percentile from distance order by from_chord desc, rank limit 1
),

final as (
    select
        $source_key as source_key,
        counted.token_id,
        counted.count,
        case when counted.count = 0 then 0 else ranked.frequency end as frequency,
        ranked.percentile,
        ranked.occurrence_percentile,
        ranked.rank,
        coalesce(abs(ranked.percentile - elbow.percentile) <= 1, false) as is_elbow
    from counted
    left join ranked using (token_id)
    left join elbow on true
    order by counted.token_id
)

select * from final;
