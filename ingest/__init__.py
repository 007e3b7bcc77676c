"""From a model and a corpus to the parts of a run: everything that touches torch. Never opens a database."""
