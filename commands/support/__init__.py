"""What several commands share: settings, tables on a terminal, choosing runs, executors."""
