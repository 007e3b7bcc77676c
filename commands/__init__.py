"""The commands, a module for each family; with cli.py the only code that sees all layers."""
