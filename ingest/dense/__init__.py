"""The dense path: what lies behind the neuron is run again for each of them."""
