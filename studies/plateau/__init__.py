"""A revised rule for the curve of influence, and what simulation says of it; the product does not decide by it yet.

The line has a head, a power law and a tail in one least-squares fit; a step at the head is tested by its spacings
(scan) and by what it explains (jump). `study` tries both on curves whose truth is known, `table` prints the results.
"""
