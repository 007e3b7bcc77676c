"""How it is computed: float32's rounding, threads, the compiler, and clocks."""
