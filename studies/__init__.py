"""Scripts that make results and are no product: the embedded model's training, simulations, made-up data."""
