"""A workload without classes: a number of some numbers."""
