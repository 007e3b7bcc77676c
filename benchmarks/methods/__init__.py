"""Ways to measure a neuron's effects, timed side by side, and their errors against float64."""
