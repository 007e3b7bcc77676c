-- What the sign of a gated MLP's activations hides: correlations of |activation|, cosines of input vectors. Preset es.
-- w_in is the gate's row where the MLP is gated; only there is w_up. Random groups: mean ± standard deviation. p: Holm.
with test as (
    select
        run_id, preset, group_name, regexp_extract(setting, 'space=(\w+)', 1) as space,
        printf('%.4f', value) as shown, printf('%.4f ± %.4f', reference_mean, reference_sd) as random,
        printf('%.3f', p_holm) as p
    from group_test
    where
        analysis in ('activation_correlation', 'cosine_similarity') and setting like '%, comparison=within'
        and test = 'control' and token_group = 'rare' and group_name in ('boost', 'suppress') and value is not null
)

select
    run.model,
    run.revision,
    run.corpus,
    test.group_name,
    max(shown) filter (space = 'abs_activation') as magnitudes,
    max(random) filter (space = 'abs_activation') as random_magnitudes,
    max(p) filter (space = 'abs_activation') as p_magnitudes,
    max(shown) filter (space = 'w_in') as w_in,
    max(random) filter (space = 'w_in') as random_w_in,
    max(p) filter (space = 'w_in') as p_w_in,
    max(shown) filter (space = 'w_up') as w_up,
    max(random) filter (space = 'w_up') as random_w_up,
    max(p) filter (space = 'w_up') as p_w_up
from test
join dim_run as run using (run_id)
group by run.model, run.revision, run.corpus, run.created_at, test.group_name
order by run.created_at, run.model, test.group_name
