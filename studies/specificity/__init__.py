"""Is the test of specificity honest on a real model: known nulls and planted neurons."""
