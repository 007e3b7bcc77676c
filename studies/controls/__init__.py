"""Controls of the whole pipeline: models with a known truth, from a folder on disk to the relation a user reads."""
