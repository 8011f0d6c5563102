"""The statistics that the gate argues with: pure functions on counts, arrays and seeds; numpy and scipy only.

    intervals    Wilson for proportions, BCa bootstrap for the rest
    paired       candidate against champion on the same examples
    clusters     both, where examples come in groups
    power        how often such a test passes, computed exactly, and the examples needed
    folds        two versions cross-validated on the same folds
    multiple     many tests at once
    calibration  do probabilities mean what they say

What does not belong here: a rule, a record, the store, and any word that a person reads in a verdict.
"""
