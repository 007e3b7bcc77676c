"""How long it takes: the ablation, attention, analyses, workers, the report."""
