-- Beyond the papers: does the ranking depend on what replaces an activation? Against the mean, for rare tokens.
select
    agreement.run_id,
    agreement.preset,
    string_agg(
        printf(
            '%s: %d of 50 shared, rank correlation %.2f, plateau %s', other_ablation, shared_50, rank_correlation,
            other_decision
        ),
        '; ' order by other_ablation
    ) as measured,
    'measured' as verdict
from reference_agreement as agreement
where token_group = 'rare' and ablation = 'mean'
group by agreement.run_id, agreement.preset
