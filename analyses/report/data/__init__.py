"""What the report shows, as values; nothing here draws."""
