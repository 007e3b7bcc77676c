"""The stages of a run that stand on the ablation: capture, parts, what is told of each neuron, and the self-check."""
