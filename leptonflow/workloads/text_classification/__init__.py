"""Text classification: one text, one of K classes.

The looks at a raw text, its tokens, the models, the baseline and what a report shows of texts belong here.
What does not: the metrics, which every classification shares (workloads.classification), stores, folds, gates.
"""
