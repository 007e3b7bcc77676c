-- Beyond the papers: of the neurons of the rare curve's head, how many are specific to rare tokens?
select
    specificity.run_id,
    specificity.preset,
    printf(
        '%d of %d rare, %d common; median ratio %.2f', count(*) filter (specific_to = 'rare'), count(*),
        count(*) filter (specific_to = 'common'), median(ratio)
    ) as measured,
    'measured' as verdict
from neuron_specificity as specificity
join neuron_influence as influence using (run_id, preset, neuron)
join power_law_fit as fit on influence.run_id = fit.run_id and influence.preset = fit.preset and fit.token_group = 'rare'
where matching = 'loss' and influence.token_group = 'rare' and influence.rank <= fit.head_rank
group by specificity.run_id, specificity.preset
