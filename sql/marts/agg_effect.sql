-- agg_effect: effects summed over positions that no threshold on a multiple of 5 tells apart.
-- One row per run × neuron × window × percentile_bucket × occurrence_bucket × is_word × is_elbow.
--   run_id             the run
--   layer              layer of the neuron
--   neuron             its index in the layer
--   window_id          the window
--   percentile_bucket  stands for the type percentile: comparing it (<, <=, =, >=, >) with 0, 5, …
--                      50 gives what the percentile itself would give
--   occurrence_bucket  the same for the occurrence percentile
--   is_word            the targets are correctly spelled words
--   is_elbow           the targets lie at the elbow of the frequency curve
--   positions          number of positions
--   abs_delta_sum      Σ |delta_loss|, nats
--   delta_sum          Σ delta_loss, nats
--   square_sum         Σ delta_loss², nats²
--
-- What sensitivity to thresholds and the bootstrap over windows read instead of the facts. Both
-- percentiles rise with the count, so few pairs of buckets occur. Sums are exact (see exact_avg).

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
    cell.positions,
    nats(effect.abs_delta_units) as abs_delta_sum,
    nats(effect.delta_units) as delta_sum,
    effect.square_sum
from store.agg_effect as effect
join store.effect_cell as cell using (run_key, cell)
join store.run as run using (run_key);

insert into store.effect_cell by name
with bucketed as (
    select run_key, window_id, percentile_bucket, occurrence_bucket, is_word, is_elbow
    from store.position_frequency
    where run_key = $run_key
),

counted as (
    select *, count(*) as positions from bucketed group by all
),

final as (
    select
        *,
        row_number() over (
            order by window_id, percentile_bucket, occurrence_bucket, is_word, is_elbow
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
    select * from store.position_frequency where run_key = $run_key
),

member as (
    select bucketed.position_id, cell.cell
    from bucketed
    join cell using (window_id, percentile_bucket, occurrence_bucket, is_word, is_elbow)
),

effect as (
    select neuron, position_id, units(delta_loss) as delta
    from store.fct_effect
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
