"""The commands, one module each. Only they and cli.py see all layers."""
