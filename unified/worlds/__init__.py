"""Embedded worlds: the data, the exact parser, the judge and the benchmark of each."""
