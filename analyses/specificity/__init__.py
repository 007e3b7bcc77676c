"""Which neurons matter more for rare tokens than their influence and the tokens' difficulty explain."""
