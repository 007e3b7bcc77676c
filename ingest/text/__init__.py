"""What a run is measured on: corpora, windows of text, counts of tokens, words, matched contexts."""
