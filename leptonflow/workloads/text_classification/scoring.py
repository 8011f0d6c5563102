"""The metrics of one class per example."""

from __future__ import annotations

from leptonflow.workloads.classification import curve, score

__all__ = ["curve", "score"]
