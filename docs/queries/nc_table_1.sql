-- NC table 1: signed modularity and communities of Louvain partitions, measured beside printed. Preset nc.
-- Measured: the best of 100 runs with its 95 % interval over windows, the communities' mean ± sd over the runs, and
-- the same of 100 random groups of the same size (mean ± standard deviation). p: against these, Holm.
with measured as (
    select g.run_id, g.group_name, g.k, g.edges, g.signed_modularity as q, g.signed_modularity_low as low,
        g.signed_modularity_high as high, g.communities_mean, g.communities_sd, random.*
    from graph_modularity as g
    join (
        select run_id as random_run, k as random_k,
            avg(signed_modularity) as random_q, stddev(signed_modularity) as random_sd,
            avg(communities) as random_communities, stddev(communities) as random_communities_sd
        from graph_modularity
        where method = 'louvain' and group_name = 'control' and token_group = 'rare'
        group by run_id, k
    ) as random on random.random_run = g.run_id and random.random_k = g.k
    where g.method = 'louvain' and g.group_name not in ('control') and g.token_group = 'rare'
),

test as (
    select run_id, group_name, p_holm
    from group_test
    where
        analysis = 'graph_modularity' and statistic = 'signed_modularity' and setting = 'method=louvain'
        and test = 'control' and token_group = 'rare'
),

every as (
    select
        1 as printed, run.model, run.revision, run.corpus, run.created_at, m.group_name, m.k, m.edges,
        printf('%.3f [%.3f, %.3f]', q, low, high) as signed_modularity,
        printf('%.1f ± %.1f', communities_mean, communities_sd) as communities,
        printf('%.3f ± %.3f', random_q, random_sd) as random_signed_modularity,
        printf('%.1f ± %.1f', random_communities, random_communities_sd) as random_communities,
        printf('%.3f', p_holm) as p
    from measured as m join dim_run as run using (run_id) left join test using (run_id, group_name)
    union all
    select
        2, model, 'as printed', null, null, group_name, null, null,
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'signed_modularity'),
        max(printf('%g ± %g', value, plus_minus)) filter (quantity = 'communities'),
        null, null,
        max(printf('%g', value)) filter (quantity = 'signed_modularity_p_value')
    from published_value
    where paper = 'NC' and place = 'table 1' and group_name is not null
    group by model, group_name
)

select model, revision, corpus, group_name, k, edges, signed_modularity, random_signed_modularity, communities, random_communities, p
from every
order by printed, created_at, model, group_name
