"""What several commands need: settings, tables on a terminal, which runs are meant, executors."""
