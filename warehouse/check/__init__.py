"""Checks the data of published runs again."""
