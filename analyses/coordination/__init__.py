"""Do the neurons of a group act together? Activations, weights, graphs, spectra, each beside controls."""
