"""The gate's rules, one small module for each kind: a pure function of a rule and a case -> Evaluated.

    case       what every rule is given, and what it returns
    words      figures, bounds and sentences in one way
    scores     a metric over any choice of the holdout's examples, fast
    bounds     at_least, at_most, fold_spread
    against    against_champion, on the holdout and over the folds
    slicing    slices
    measures   calibration, baseline, overfit, latency, size
    always     the rules of every verdict, never written in a YAML

What does not belong here: measuring (evaluation, load_check), gathering (evidence), and what the rules
decide together (gate).
"""
