"""The distribution of influence: the power law, deviations, regimes, the plateau decision, other thresholds."""
