"""Where attention heads look, and what ablating or patching them does to neurons and to the loss."""
