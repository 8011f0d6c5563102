"""The ML tasks: the contract (base), their list (catalog), one module or package per task, and media.

A workload knows how to examine one raw example, how to build its Keras model and how to score its outputs. It knows
nothing of stores, batches, folds, gates or flows.
"""
