"""Measured comparisons that anyone can run: `make bench`, or one by `python -m benchmarks.overhead`. Never tests."""
