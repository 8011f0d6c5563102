"""The champion's predictions for many examples: folders, tables and S3 prefixes, in flat memory, resumable, to Parquet.

What does not belong here: single predictions (evaluation.champion_predictions), and predictions over HTTP (serving).
"""
