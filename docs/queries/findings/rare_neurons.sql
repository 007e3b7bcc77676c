-- Beyond the papers: which neurons are specific to rare tokens (matched by loss), with their rank by influence on them.
with listed as (
    select
        run_id, preset, neuron, ratio, ratio_low, ratio_high, rank,
        row_number() over (partition by run_id, preset order by ratio desc) as place,
        count(*) over (partition by run_id, preset) as every
    from neuron_specificity
    join neuron_influence using (run_id, preset, neuron)
    where matching = 'loss' and specific_to = 'rare' and token_group = 'rare'
)

select
    run_id,
    preset,
    string_agg(
        printf('%d (rank %d): %.2f [%.2f, %.2f]', neuron, rank, ratio, ratio_low, ratio_high), '; ' order by place
    ) || if(max(every) > 5, printf('; and %d more', max(every) - 5), '') as measured,
    'measured' as verdict
from listed
where place <= 5
group by run_id, preset
