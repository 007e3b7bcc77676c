"""The public relations and macros, as defined by their SQL files, and the migrations that make their tables."""
