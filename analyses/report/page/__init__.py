"""The report's page: templates, scripts, and writing it."""
