-- A series over its training steps: κ and the plateau of rare words, the share of the first 1 %, and α of the last step's
-- groups (half of the spectrum) against random groups of the same size.
with quantity as (
    select
        run_id,
        training_step,
        coalesce(group_name || '_', '') || quantity as name,
        if(low is null, printf('%.2f', value), printf('%.2f [%.2f, %.2f]', value, low, high)) as shown
    from emergence
    where
        preset = 'es' and token_group = 'rare' and rank is null
        and (chosen_at is null or chosen_at = 'last')
)

select
    run.model,
    run.corpus,
    run.training_step,
    max(shown) filter (name = 'kappa') as kappa,
    max(shown) filter (name = 'plateau_neurons') as plateau_neurons,
    max(shown) filter (name = 'top_share') as top_share,
    max(shown) filter (name = 'boost_group_median_rank') as boost_median_rank,
    max(shown) filter (name = 'boost_group_overlap_with_last') as boost_overlap,
    max(shown) filter (name = 'boost_alpha_mid') as boost_alpha,
    max(shown) filter (name = 'suppress_alpha_mid') as suppress_alpha,
    max(shown) filter (name = 'control_alpha_mid') as random_alpha
from quantity
join dim_run as run using (run_id)
group by run.model, run.corpus, run.training_step
order by run.model, run.corpus, run.training_step
