"""What is predicted of an example, and how it is scored: one class of K."""

from __future__ import annotations

from leptonflow.workloads.classification import ONE_CLASS, score

__all__ = ["TARGET", "score"]

TARGET = ONE_CLASS
