"""The metrics of the workloads by their names. How they are computed belongs to the workloads."""

from __future__ import annotations

import re
from typing import NamedTuple


class Metrics(NamedTuple):
    """names: of all examples; of_class: those that one class has too, as `recall[cat]`; lower: less of them is better.

    right  whether a prediction is right or wrong, which some rules need
    """

    names: tuple[str, ...]
    of_class: tuple[str, ...] = ()
    lower: frozenset[str] = frozenset()
    right: bool = True

    def fault(self, metric: str) -> str | None:
        """Those that there are, where it is none of them; None: it is one."""
        found = re.fullmatch(r"(\w+)\[(.+)\]", metric, re.DOTALL)
        if metric in self.names or (found and found[1] in self.of_class):
            return None
        each = f", or per class {', '.join(f'{name}[CLASS]' for name in self.of_class)}" if self.of_class else ""
        return f"one of {', '.join(self.names)}{each}"


CLASSIFICATION = Metrics(
    ("accuracy", "precision", "recall", "f1", "log_loss"), ("precision", "recall", "f1"), frozenset({"log_loss"})
)


def class_of(metric: str | None) -> str | None:
    """The class of `recall[cat]`, None for a metric of all classes."""
    found = re.fullmatch(r"\w+\[(.+)\]", metric or "", re.DOTALL)
    return found[1] if found else None
