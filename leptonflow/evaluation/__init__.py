"""Candidate and champion on the same holdout: predictions, error analysis, intervals, the load check."""
