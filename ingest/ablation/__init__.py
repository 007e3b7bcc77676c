"""Every neuron of the last MLP ablated at every position, by moments of the prediction and pair by pair."""
