"""Packages, the champion and its history, manual decisions, lineage, model cards."""
