"""What is ablated in the benchmarks: real layers as captured, others made from them, and hostile ones."""
