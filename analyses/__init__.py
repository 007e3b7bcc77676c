"""Pure functions from Polars frames and arrays to Polars frames. Never imports torch, never opens a database."""
