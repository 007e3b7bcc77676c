"""Simulations of the rules for the curve of influence.

The line has a head, a power law and a tail in one least-squares fit; a step at the head is tested by its spacings
(scan) and by what it explains (jump). `study` tries both on curves whose truth is known, `table` prints the results.
"""
