"""The Python client: an open warehouse, and its relations as objects."""
