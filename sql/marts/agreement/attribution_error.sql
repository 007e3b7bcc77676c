-- attribution_error: how far first-order estimates are from effects, counted by window.
-- Macro attribution_error(run).
-- Example: from attribution_error('embedded-step6144') limit 5
--   run_id          the run
--   preset          definition of rare and common (see position_group)
--   token_group     rare or common
--   decile          tenth of the group's pairs of neuron and position by |delta_loss|: 1 has the
--                   smallest
--   window_id       the window; in matched contexts the pair
--   error_class     class of the relative error, |attributed_delta_loss − delta_loss| over
--                   |delta_loss|: floor(20 ln error), so a class is 5 % wide; an error below 1e-9
--                   counts as 1e-9
--   pairs           pairs of neuron and position
--   wrong_signs     of these, attributed_delta_loss has the other sign than delta_loss
--   abs_delta_sum   Σ |delta_loss|, nats
--   abs_error_sum   Σ |attributed_delta_loss − delta_loss|, nats
--   smallest_delta  smallest |delta_loss|, nats
--   largest_delta   largest |delta_loss|, nats
--
-- Only pairs whose |delta_loss| exceeds the run's tolerance: of the others neither sign nor
-- relative error is known. No row where the run has no attributed_delta_loss. Deciles are of the
-- whole token group, whatever the window; |delta_loss| is cut into classes 1 % wide
-- (floor(100 ln)), and a class goes whole to the decile that holds its middle. It reads every fact
-- of the run twice; sums are exact (see exact_avg).

create or replace macro attribution_error(run) as table
with chosen as (
    select r.run_key, r.run_id, r.tolerance
    from store.run as r
    where r.run_key = run_key_of(run) and list_contains(r.effects, 'attribution')
),

member as materialized (
    select p.position_id, p.window_id, p.kind, p.groups
    from store.position_kind as p
    where p.run_key = (select k.run_key from chosen as k)
),

kind as (
    select distinct m.kind, m.groups
    from member as m
),

effect as not materialized (
    select
        m.kind,
        m.window_id,
        abs(e.delta_loss)::double as size,
        abs(e.attributed_delta_loss::double - e.delta_loss) as error,
        sign(e.attributed_delta_loss) * sign(e.delta_loss) < 0 as is_wrong,
        floor(100 * ln(size))::smallint as size_class
    from store.effect as e
    join member as m using (position_id)
    where
        e.run_key = (select k.run_key from chosen as k)
        and abs(e.delta_loss) > (select k.tolerance from chosen as k)
        and e.attributed_delta_loss is not null
),

counted as materialized (
    select e.kind, e.size_class, count(*) as pairs
    from effect as e
    group by e.kind, e.size_class
),

of_group as (
    select unnest(k.groups) as of, c.kind, c.size_class, c.pairs
    from counted as c
    join kind as k using (kind)
),

of_class as (
    select g.of, g.size_class, sum(g.pairs) as pairs
    from of_group as g
    group by g.of, g.size_class
),

placed as (
    select
        c.of,
        c.size_class,
        sum(c.pairs) over (partition by c.of order by c.size_class) - c.pairs / 2 as middle,
        sum(c.pairs) over (partition by c.of) as total
    from of_class as c
),

graded as (
    select
        g.kind,
        g.size_class,
        list(
            (g.of, least(10, 1 + floor(10 * p.middle / p.total))::bigint) order by g.of
        ) as deciles
    from of_group as g
    join placed as p using (of, size_class)
    group by g.kind, g.size_class
),

-- What the pairs of some classes have in common: their groups, and in each of them the decile.
part as (
    select row_number() over (order by d.deciles)::smallint as part, d.deciles
    from (select distinct deciles from graded) as d
),

lookup as materialized (
    select g.kind, g.size_class, p.part
    from graded as g
    join part as p using (deciles)
),

summed as materialized (
    select
        l.part,
        e.window_id,
        floor(20 * ln(greatest(e.error / e.size, 1e-9)))::smallint as error_class,
        count(*) as pairs,
        count_if(e.is_wrong) as wrong_signs,
        sum(units(e.size)) as delta_units,
        sum(units(e.error)) as error_units,
        min(e.size) as smallest_delta,
        max(e.size) as largest_delta
    from effect as e
    join lookup as l using (kind, size_class)
    group by all
),

expanded as (
    select unnest(p.deciles) as of, s.* exclude (part)
    from summed as s
    join part as p using (part)
),

final as (
    select
        k.run_id,
        x.of[1][1] as preset,
        x.of[1][2] as token_group,
        x.of[2] as decile,
        x.window_id,
        x.error_class,
        sum(x.pairs)::bigint as pairs,
        sum(x.wrong_signs)::bigint as wrong_signs,
        nats(sum(x.delta_units)) as abs_delta_sum,
        nats(sum(x.error_units)) as abs_error_sum,
        min(x.smallest_delta) as smallest_delta,
        max(x.largest_delta) as largest_delta
    from expanded as x
    cross join chosen as k
    group by all
)

select * from final;
