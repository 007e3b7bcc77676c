"""The SQL of the warehouse.

`schema`: ordered migrations; `marts`: one relation or macro a file; `audit`: views that the data checks read.
"""
