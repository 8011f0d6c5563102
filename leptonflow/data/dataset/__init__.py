"""Accepted examples: parts, snapshots, corrections, the split."""
