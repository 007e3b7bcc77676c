-- Beyond the papers: neurons that matter more for rare (common) tokens than for common (rare) ones of the same loss.
select
    run_id,
    preset,
    if(
        count(ratio) = 0, any_value(reason),
        printf(
            '%d rare, %d common of %d; words alone: %s',
            count(*) filter (matching = 'loss' and specific_to = 'rare'),
            count(*) filter (matching = 'loss' and specific_to = 'common'),
            count(ratio) filter (matching = 'loss'),
            if(
                count(ratio) filter (matching = 'loss+word') = 0, 'cannot be compared',
                printf(
                    '%d rare, %d common',
                    count(*) filter (matching = 'loss+word' and specific_to = 'rare'),
                    count(*) filter (matching = 'loss+word' and specific_to = 'common')
                )
            )
        )
    ) as measured,
    'measured' as verdict
from neuron_specificity
group by run_id, preset
