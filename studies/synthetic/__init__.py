"""Made-up runs, curves and report inputs that tests, benchmarks and studies share."""
