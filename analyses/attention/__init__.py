"""What attention heads do for rare and for common tokens."""
