"""Where facts and the records of runs are kept."""
