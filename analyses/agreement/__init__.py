"""Do two ways to measure a neuron's influence rank the neurons alike: references, and first-order estimates."""
