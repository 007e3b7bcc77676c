"""What is ablated: the folded head, the unablated model at a block of positions, and what an edit changes."""
