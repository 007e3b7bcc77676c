-- agg_effect: effects summed over positions that no threshold at a multiple of 5 tells apart.
-- One row per run × neuron × window × buckets × is_word × is_elbow × matched_group.
--   run_id             the run
--   layer              layer of the neuron
--   neuron             its index in the layer
--   window_id          the window; in matched contexts the pair, whose contexts are not independent
--   percentile_bucket  stands for the type percentile: comparing it (<, <=, =, >=, >) with 0, 5, …
--                      50 gives what the percentile itself would give
--   occurrence_bucket  the same for the occurrence percentile
--   is_word            the targets are correctly spelled words
--   is_elbow           the targets lie at the elbow of the frequency curve
--   matched_group      rare or common: what the targets are in their pairs; NULL in a sample
--   positions          number of positions
--   abs_delta_sum      Σ |delta_loss|, nats
--   delta_sum          Σ delta_loss, nats
--   square_sum         Σ delta_loss², nats²
--
-- The sensitivity to thresholds and the bootstrap over windows read this instead of the facts. Both
-- percentiles rise with the count, so only few pairs of buckets occur. Sums are exact (see
-- exact_avg).

create or replace view agg_effect as
select
    run.run_id,
    run.layer,
    effect.neuron,
    cell.window_id,
    cell.percentile_bucket,
    cell.occurrence_bucket,
    cell.is_word,
    cell.is_elbow,
    cell.matched_group,
    cell.positions,
    nats(effect.abs_delta_units) as abs_delta_sum,
    nats(effect.delta_units) as delta_sum,
    effect.square_sum
from store.agg_effect as effect
join store.effect_cell as cell using (run_key, cell)
join store.run as run using (run_key);

insert into store.effect_cell by name
with bucketed as (
    select
        graded.run_key,
        coalesce(context.pair_id, graded.window_id) as window_id,
        graded.percentile_bucket,
        graded.occurrence_bucket,
        graded.is_word,
        graded.is_elbow,
        context.token_group as matched_group
    from store.position_frequency as graded
    left join store.position_context as context using (run_key, position_id)
    where graded.run_key = $run_key
),

counted as (
    select *, count(*) as positions from bucketed group by all
),

final as (
    select
        *,
        row_number() over (
            order by
                window_id, percentile_bucket, occurrence_bucket, is_word, is_elbow, matched_group
        ) as cell
    from counted
    order by cell
)

select * from final;

insert into store.agg_effect by name
with cell as (
    select * from store.effect_cell where run_key = $run_key
),

bucketed as (
    select
        graded.* replace (coalesce(context.pair_id, graded.window_id) as window_id),
        context.token_group as matched_group
    from store.position_frequency as graded
    left join store.position_context as context using (run_key, position_id)
    where graded.run_key = $run_key
),

member as (
    select bucketed.position_id, cell.cell
    from bucketed
    join cell
        on
            bucketed.window_id = cell.window_id
            and bucketed.percentile_bucket = cell.percentile_bucket
            and bucketed.occurrence_bucket = cell.occurrence_bucket
            and bucketed.is_word = cell.is_word
            and bucketed.is_elbow = cell.is_elbow
            and bucketed.matched_group is not distinct from cell.matched_group
),

effect as (
    select neuron, position_id, units(delta_loss) as delta
    from store.effect
    where run_key = $run_key and neuron between $first_neuron and $last_neuron
),

final as (
    select
        $run_key as run_key,
        effect.neuron,
        member.cell,
        sum(abs(effect.delta)) as abs_delta_units,
        sum(effect.delta) as delta_units,
        nats(nats(sum(effect.delta::hugeint * effect.delta))) as square_sum
    from effect
    join member using (position_id)
    group by effect.neuron, member.cell
    order by effect.neuron, member.cell
)

select * from final;
