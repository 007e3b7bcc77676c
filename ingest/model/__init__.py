"""The model: where it is, what it is made of, and its final norm and unembedding as tensors."""
