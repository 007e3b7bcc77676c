"""What the three layers share: error classes, the format of a run's parts, progress, atomic files.

This package imports none of the layers (ingest, warehouse and analyses never import each other).
"""
