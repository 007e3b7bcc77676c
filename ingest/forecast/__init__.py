"""How long a run will take: measured on a few positions where its weights are at hand, else reckoned."""
