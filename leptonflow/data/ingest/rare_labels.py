"""Labels that are likely typing errors: of very few examples, and spelt nearly like another one. Pure.

What does not belong here: labels that differ only by case, blanks or Unicode form (layouts).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

TIMES = 10  # so many times as many examples has the label that a rare one may have been meant for
NEAR = 0.8  # of difflib's ratio: `caat` and `cat` have 0.86, `care` and `cart` 0.75
SHORTEST = 3  # letters of a label of which one may be another one
MOST = 5  # labels that are named
MOST_COMPARED = 1000  # labels; comparing is quadratic


def nearly(counts: Mapping[str, int]) -> dict[str, str]:
    """Rare label -> the frequent one that it is spelt nearly like. Names that differ in their digits alone are not."""
    if len(counts) > MOST_COMPARED:
        return {}
    found: dict[str, str] = {}
    for name, count in counts.items():
        letters = _letters(name)
        others = {_letters(other): other for other, many in counts.items() if many >= TIMES * count and other != name}
        others.pop(letters, None)
        one = 1 - 1 / len(letters) - 1e-9 if len(letters) >= SHORTEST else 1  # the ratio where one letter is another
        near = difflib.get_close_matches(letters, others, n=1, cutoff=min(NEAR, one)) if letters else []
        if near:
            found[name] = others[near[0]]
    return found


def warnings(counts: Mapping[str, int], folds: int, named: bool = False) -> list[str]:
    """A sentence about labels that a first batch makes classes and that cannot be meant, or not be trained; or none.

    counts: label -> accepted examples; folds: so many examples of each class are needed to train; named:
    whether `classes` in the YAML names them.
    """
    near = nearly(counts)
    few = sorted((name for name, count in counts.items() if count < folds or name in near), key=counts.__getitem__)
    if not few:
        return []
    told = [
        f"{name!r} has {counts[name]}" + (f" ({like(near[name], counts)})" if name in near else "")
        for name in few[:MOST]
    ]
    told += [f"{len(few) - MOST} more have few as well"] if few[MOST:] else []
    return [
        f"classes with few examples: {', '.join(told)}; training in {folds} folds needs {folds} of each class. Where "
        "one is a typing error, correct the source, `ingest` it with --correct, and then "
        + (
            "take it out of `classes` and the gate in the YAML"
            if named
            else "name the classes under `classes` in the YAML"
        )
    ]


def like(other: str, counts: Mapping[str, int]) -> str:
    """Said of a rare label: which frequent one it is spelt nearly like."""
    return f"spelt nearly like {other!r}, which has {counts[other]}"


def _letters(name: str) -> str:
    return "".join(c for c in name.casefold() if not (c.isdigit() or c.isspace()))
