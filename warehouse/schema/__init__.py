"""The public relations and macros as their SQL files say, and the migrations that make their tables."""
