"""Several runs together: training series, and how two checkpoints compare."""
