-- measured_value: the numbers of the papers' tables, as measured here.
-- One row per run × preset × token_group × place × group_name × quantity × definition.
--   run_id          the run
--   preset          definition of rare and common (see position_group)
--   token_group     the positions measured, and the influence that ranks the neurons
--   layer           layer of the neurons
--   paper           ES, NC
--   place           table or section of the paper, as in published_value
--   group_name      as in published_value: boost, suppress, random, a pair of them: boost_random
--   quantity        as in published_value
--   definition      which of several definitions, if the paper leaves it open; else empty
--   measured_group  the group of neurons here (see neuron_group) that was measured
--   k               neurons in the group
--   value           the measured number, in the unit of the printed one
--   low             lower end of the 95 % interval, if there is one
--   high            upper end of the same
--   spread          standard deviation over random groups, or over runs of a community detection
--   random_mean     mean over random groups of the same size, if the group was tested
--   random_sd       its standard deviation
--   p_value         p-value against the random groups, after Holm
--   analysis        the test in group_test that it is of, with measured_group and k; NULL if none
--   statistic       likewise
--   setting         likewise
--   reason          why a value is NULL; NULL if none is
--
-- ES tables 1 to 4 and §4.1, NC tables 1 and 2 and §3. The report compares it with published_value.

create or replace view measured_value as
with correlation as (
    select
        run_key, preset, token_group, 'activation_correlation' as quantity, 'table 1' as place,
        group_name as grp, other_group, comparison, k, other_k, mean_correlation as value,
        low, high, reason
    from store.activation_correlation
    where space = 'activation'
    union all
    select
        run_key, preset, token_group, 'weight_cosine_similarity', 'table 3', group_name,
        other_group, comparison, k, other_k, mean_cosine, null, null, reason
    from store.cosine_similarity
    where space = 'w_out'
),

pairwise as (
    select
        run_key, preset, token_group, 'ES' as paper, place,
        case
            when grp = 'control' and comparison = 'within' then 'random'
            when grp = 'control' then 'random_random'
            when comparison = 'within' then grp
            when comparison = 'random' then grp || '_random'
            else grp || '_' || other_group
        end as group_name,
        quantity, '' as definition, grp as measured_group, k, avg(value) as value,
        any_value(low) as low, any_value(high) as high, stddev(value) as spread,
        any_value(reason) as reason
    from correlation
    where
        grp in ('boost', 'suppress')
        or (grp = 'control' and comparison in ('within', 'groups') and k = 50 and other_k = 50)
    group by run_key, preset, token_group, place, quantity, grp, other_group, comparison, k
),

dimension as (
    select
        run_key, preset, token_group, 'ES', 'table 2',
        if(group_name = 'control', 'random', group_name),
        'effective_dimension_percent', definition, group_name, k, avg(value), any_value(low),
        any_value(high), stddev(value), any_value(reason)
    from (
        select
            *, '95 % of the variance' as definition, dimension_percent as value,
            dimension_percent_low as low, dimension_percent_high as high
        from store.effective_dimension
        union all
        select
            *, 'participation ratio', participation_percent, participation_percent_low,
            participation_percent_high
        from store.effective_dimension
    )
    where
        group_name in ('boost', 'suppress', 'control') and k = 50
        and standardised and threshold = 0.95
    group by run_key, preset, token_group, definition, group_name, k
),

spectrum as (
    select
        run_key, preset, token_group, 'ES', 'table 4',
        if(group_name = 'control', 'random', group_name),
        'hill_alpha', replace(rule, '_', ' '), group_name, k, avg(alpha), any_value(alpha_low),
        any_value(alpha_high), stddev(alpha), any_value(reason)
    from store.weight_spectrum
    where
        matrix = 'w_out' and not standardised
        and (group_name in ('boost', 'suppress', 'layer') or (group_name = 'control' and k = 50))
    group by run_key, preset, token_group, rule, group_name, k
),

louvain as (
    select
        run_key, preset, token_group, 'NC', 'table 1',
        case
            when group_name in ('excitatory', 'top_boost', 'boost') then 'plateau_excitatory'
            else 'plateau_inhibitory'
        end,
        quantity, definition, group_name, k, value, low, high, spread, reason
    from (
        select
            *, 'signed_modularity' as quantity, signed_modularity as value,
            signed_modularity_low as low, signed_modularity_high as high,
            signed_modularity_sd as spread
        from store.graph_modularity
        union all
        select *, 'communities', communities_mean, null, null, communities_sd
        from store.graph_modularity
    )
    join (
        values
            ('excitatory', 'plateau'), ('inhibitory', 'plateau'), ('top_boost', 'top 1 %'),
            ('top_suppress', 'top 1 %'), ('boost', 'top 50'), ('suppress', 'top 50')
    ) as defined (group_name, definition) using (group_name)
    where method = 'louvain'
),

regime as (
    select
        run_key, preset, token_group, 'ES', '§4.1', token_group, quantity, '',
        null, null, value, low, high, null, reason
    from (
        select
            d.run_key, d.preset, d.token_group, 'log_rank_decay_start' as quantity,
            d.slope_break_log_rank as value, d.slope_break_low as low, d.slope_break_high as high,
            d.reason
        from store.regime_decision as d
        where d.statistic = 'mean_abs' and d.role = 'all'
        union all
        select
            d.run_key, d.preset, d.token_group, 'plateau_percent',
            case d.decision
                when 'present' then 100 * d.break_rank / r.neurons
                when 'absent' then 0
            end,
            case d.decision when 'present' then 100 * d.break_low / r.neurons end,
            case d.decision when 'present' then 100 * d.break_high / r.neurons end,
            coalesce(d.reason, if(d.decision = 'undecided', 'undecided whether there is one', null))
        from store.regime_decision as d
        join store.run as r using (run_key)
        where d.statistic = 'mean_abs' and d.role = 'all'
    )
),

attention as (
    select
        run_key, preset, token_group, 'NC', place, grp, quantity, definition, measured_group, k,
        value, low, high, spread, reason
    from (
        select
            h.run_key, h.preset, h.token_group, 'table 2' as place, renamed.printed as grp,
            unnest(['plateau_activation_change_percent', 'effect_size']) as quantity,
            concat_ws(
                ', ', if(h.group_name = 'top', 'top 1 %', h.group_name), h.head_ablation,
                'layer ' || h.attention_layer
            ) as definition,
            h.group_name as measured_group, h.k,
            unnest([100 * h.activation_change, h.effect_size]) as value,
            unnest([100 * h.change_low, null]) as low, unnest([100 * h.change_high, null]) as high,
            null as spread, h.reason
        from store.head_ablation as h
        join (
            values
                ('largest_head', 'single_head_largest'), ('random_head', 'single_head_random'),
                ('layer', 'all_heads'), ('control', 'non_attention_control')
        ) as renamed (target, printed) using (target)
        where h.group_name in ('plateau', 'top')
        union all
        select
            run_key, preset, token_group, '§3', unnest(['rare_common', 'rare', 'common']),
            unnest(['attention_correlation', 'attention_gini', 'attention_gini']), '', null, null,
            unnest([correlation, gini, common_gini]), unnest([correlation_low, null, null]),
            unnest([correlation_high, null, null]),
            unnest([correlation_sd, gini_sd, common_gini_sd]), reason
        from store.attention_routing
        where head is null and attention_layer is null
    )
),

every as (
    from pairwise
    union all from dimension
    union all from spectrum
    union all from louvain
    union all from regime
    union all from attention
),

test as (
    select
        run_key, preset, token_group, group_name as measured_group,
        case statistic
            when 'mean_correlation' then 'activation_correlation'
            when 'mean_cosine' then 'weight_cosine_similarity'
            when 'interpolated_dimension' then 'effective_dimension_percent'
            when 'participation_percent' then 'effective_dimension_percent'
            when 'alpha' then 'hill_alpha'
            else statistic
        end as quantity,
        case statistic
            when 'interpolated_dimension' then '95 % of the variance'
            when 'participation_percent' then 'participation ratio'
            when 'alpha' then replace(regexp_extract(setting, 'rule=(\w+)', 1), '_', ' ')
            else ''
        end as definition,
        if(statistic = 'interpolated_dimension', null, reference_mean) as random_mean,
        if(statistic = 'interpolated_dimension', null, reference_sd) as random_sd,
        p_holm, analysis, statistic, setting
    from store.group_test
    where
        test = 'control'
        and case analysis
            when 'activation_correlation' then setting = 'space=activation, comparison=within'
            when 'cosine_similarity' then setting = 'space=w_out, comparison=within'
            when 'effective_dimension' then setting = 'standardised=True, threshold=0.95'
            when 'weight_spectrum' then setting like 'matrix=w\_out%' escape '\'
            when 'graph_modularity' then setting = 'method=louvain'
            else false
        end
),

final as (
    select
        run.run_id,
        e.preset,
        e.token_group,
        run.layer,
        e.paper,
        e.place,
        e.group_name,
        e.quantity,
        e.definition,
        e.measured_group,
        e.k,
        e.value,
        e.low,
        e.high,
        e.spread,
        t.random_mean,
        t.random_sd,
        t.p_holm as p_value,
        t.analysis,
        t.statistic,
        t.setting,
        case when e.value is null then coalesce(e.reason, 'it was not measured') end as reason
    from every as e
    join store.run as run using (run_key)
    left join test as t
        on e.run_key = t.run_key and e.preset = t.preset and e.token_group = t.token_group
        and e.measured_group = t.measured_group and e.quantity = t.quantity
        and t.definition = if(e.paper = 'NC', '', e.definition)
        and e.group_name in (e.measured_group, 'plateau_excitatory', 'plateau_inhibitory')
)

select * from final;
