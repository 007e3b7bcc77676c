"""From a request to a staged run: what is asked for, its stages, its executors, its resources, resuming."""
