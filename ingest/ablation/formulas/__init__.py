"""Every effect's formula, on each path that a pair may take."""
