-- power_law_fit: the straight part of log influence against log rank, found and fitted.
-- One row per run × preset × token_group.
--   run_id       the run
--   preset       definition of rare and common (see position_group)
--   token_group  rare or common
--   layer        layer of the neurons
--   rank_window  auto: the middle piece of the best continuous three-piece fit
--   kappa        κ of log influence = −κ log rank + β on the window
--   beta         β of the same
--   r2           share of the variance of log influence on the window that the line explains; NULL
--                where it does not vary
--   first_rank   first rank of the window
--   last_rank    last rank of the window
--   ranks        ranks with an influence above 0, the only ones in the curve
--   reason       why there is no fit; NULL where there is one
--
-- SPEC 3, ES eq. 6 and 12, NC eq. 4. Natural logarithms. Every pair of breaks on a grid of 40
-- log-spaced ranks that leaves 10 ranks a piece is tried: with x and y centred, the continuous
-- function c + a·x + s·(x − b1)₊ + t·(x − b2)₊ is fitted by least squares (the normal equations,
-- eliminated one unknown after another), and the pair with the smallest squared error wins. A break
-- belongs to the piece before it. The line is then fitted anew on the middle piece alone. Sums over
-- ranks are ordered, so they repeat bit for bit.

create or replace view power_law_fit as
select
    run.run_id,
    fit.preset,
    fit.token_group,
    run.layer,
    fit.rank_window,
    fit.kappa,
    fit.beta,
    fit.r2,
    fit.first_rank,
    fit.last_rank,
    fit.ranks,
    fit.reason
from store.power_law_fit as fit
join store.run as run using (run_key);

insert into store.power_law_fit by name
with influence as (
    select preset, token_group, rank, influence
    from store.neuron_influence
    where run_key = $run_key
),

token_group as (
    select preset, token_group
    from
        (values ('es'), ('nc'), ('ds')) as p (preset),
        (values ('rare'), ('common')) as g (token_group)
    union
    select preset, token_group from influence
),

curve as (
    select preset, token_group, rank, ln(rank) as ln_rank, ln(influence) as ln_influence
    from influence
    where influence > 0
),

centre as (
    select
        preset,
        token_group,
        count(*) as n,
        sum(ln_rank order by rank) / n as mean_x,
        sum(ln_influence order by rank) / n as mean_y
    from curve
    group by preset, token_group
),

point as (
    select preset, token_group, rank, n, ln_rank - mean_x as x, ln_influence - mean_y as y
    from curve
    join centre using (preset, token_group)
),

whole as (
    select
        preset,
        token_group,
        sum(x * x order by rank) as xx,
        sum(x * y order by rank) as xy,
        sum(y * y order by rank) as yy
    from point
    group by preset, token_group
),

grid as (
    select distinct
        preset,
        token_group,
        round(exp(ln(10) + step * (ln(n - 10) - ln(10)) / 39))::bigint as break_rank
    from centre, range(40) as grid_step (step)
    where n >= 30
),

knot as (
    select preset, token_group, grid.break_rank, point.n, point.x as b
    from grid
    join point using (preset, token_group)
    where point.rank = grid.break_rank
),

-- Sums over the hinge h = (x − b)₊ of each break; x and y have mean 0, h has not.
hinge as (
    select
        knot.preset,
        knot.token_group,
        knot.break_rank,
        knot.b,
        knot.n,
        sum(point.x - knot.b order by point.rank) as h,
        sum((point.x - knot.b) * (point.x - knot.b) order by point.rank) as hh,
        sum((point.x - knot.b) * point.x order by point.rank) as hx,
        sum((point.x - knot.b) * point.y order by point.rank) as hy
    from knot
    join point using (preset, token_group)
    where point.rank > knot.break_rank
    group by all
),

pair as (
    select
        preset,
        token_group,
        first.break_rank as first_break,
        second.break_rank as second_break,
        xx,
        xy,
        yy,
        first.hx as x1,
        second.hx as x2,
        first.hh - first.h * first.h / first.n as h11,
        second.hh + (second.b - first.b) * second.h - first.h * second.h / first.n as h12,
        second.hh - second.h * second.h / second.n as h22,
        first.hy as y1,
        second.hy as y2
    from hinge as first
    join hinge as second using (preset, token_group)
    join whole using (preset, token_group)
    where second.break_rank - first.break_rank >= 10
),

without_x as (
    select
        * exclude (h11, h12, h22, y1, y2),
        h11 - x1 * x1 / xx as h11,
        h12 - x1 * x2 / xx as h12,
        h22 - x2 * x2 / xx as h22,
        y1 - x1 * xy / xx as y1,
        y2 - x2 * xy / xx as y2
    from pair
),

squared_error as (
    select
        preset,
        token_group,
        first_break,
        second_break,
        yy - xy * xy / xx - y1 * y1 / h11
        - power(y2 - h12 * y1 / h11, 2) / (h22 - h12 * h12 / h11) as squared_error
    from without_x
),

best as (
    select preset, token_group, first_break, second_break
    from squared_error
    qualify row_number() over (
        partition by preset, token_group order by squared_error, first_break, second_break
    ) = 1
),

middle as (
    select
        preset,
        token_group,
        min(rank) as first_rank,
        max(rank) as last_rank,
        count(*) as m,
        sum(ln_rank order by rank) / m as mean_x,
        sum(ln_influence order by rank) / m as mean_y
    from curve
    join best using (preset, token_group)
    where curve.rank > best.first_break and curve.rank <= best.second_break
    group by preset, token_group
),

moment as (
    select
        preset,
        token_group,
        sum((ln_rank - mean_x) * (ln_rank - mean_x) order by rank) as xx,
        sum((ln_rank - mean_x) * (ln_influence - mean_y) order by rank) as xy,
        sum((ln_influence - mean_y) * (ln_influence - mean_y) order by rank) as yy
    from curve
    join middle using (preset, token_group)
    where curve.rank between middle.first_rank and middle.last_rank
    group by preset, token_group
),

final as (
    select
        $run_key as run_key,
        preset,
        token_group,
        'auto' as rank_window,
        -(moment.xy / moment.xx) as kappa,
        middle.mean_y - moment.xy / moment.xx * middle.mean_x as beta,
        case when moment.yy > 0 then moment.xy * moment.xy / (moment.xx * moment.yy) end as r2,
        middle.first_rank,
        middle.last_rank,
        coalesce(centre.n, 0) as ranks,
        case
            when influence.preset is null then 'no position in the group'
            when coalesce(centre.n, 0) < 30
                then format(
                    'fewer than 30 neurons with an influence above 0 ({})', coalesce(centre.n, 0)
                )
        end as reason
    from token_group
    left join (select distinct preset, token_group from influence) as influence
        using (preset, token_group)
    left join centre using (preset, token_group)
    left join middle using (preset, token_group)
    left join moment using (preset, token_group)
    order by preset, token_group
)

select * from final;
