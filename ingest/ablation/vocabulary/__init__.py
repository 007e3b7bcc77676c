"""Pairs that the series leaves over: summed over the vocabulary, in float32 or in float64."""
