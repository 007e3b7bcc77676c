"""Do the neurons of a group act together? Activations, weights, graphs, spectra, each compared with controls."""
