"""Scripts whose results matter but are no product: the embedded model's training, simulations, made-up data."""
