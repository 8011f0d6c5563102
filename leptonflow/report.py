"""A run's report: one HTML file that opens offline, in light and dark, on a phone and on paper.

`render` is a pure function of recorded things. Names come from outside and are hostile: everything
is escaped by the template, and the page's own policy forbids scripts and every request. Gathering
what the report shows belongs to `recording`.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow import plots
from schemas.config import CLASS_METRICS, METRICS, Pipeline
from schemas.records import Evaluation, FitResult, InfraResult, ModelManifest, Outcome, RuleResult, Split, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_MISTAKES = 24
MOST_CLASSES = 30  # a confusion matrix of more cannot be read; the most frequent confusions are listed instead
MOST_BATCHES = 20
MOST_CONFUSIONS = 15
LARGEST_PICTURE = 192


@dataclass(frozen=True)
class Mistake:
    """A holdout example that the candidate got wrong. pixels: uint8 H x W x C, as the model saw them."""

    label: str
    predicted: str
    probability: float
    source: str
    batch: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Contents:
    """What a report shows."""

    config: Pipeline
    document: dict[str, Any]  # of `retrain`
    started_at: str
    finished_at: str
    verdict: Verdict
    evaluation: Evaluation
    fits: tuple[FitResult, ...]
    final: FitResult
    manifest: ModelManifest
    split: Split
    infra: InfraResult
    outcomes: tuple[Outcome, ...]  # of the batches that the dataset holds and of those that this run refused
    mistakes: tuple[Mistake, ...]  # the worst first, MOST_MISTAKES at most
    code: dict[str, str]


def render(contents: Contents) -> bytes:
    """The report as one HTML file (UTF-8) with no reference to anything outside itself."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, bound=bound, signed=signed, seconds=duration, when=when, printable=printable
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(**_view(contents)).encode("utf-8", "replace")


# --- how values are written ----------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """0.9612, 1,797, or a dash for what there is none of."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def bound(value: float | None) -> str:
    """Like `number`, but 1 for 1.0 and 1e-05 for what four digits would call nothing."""
    if value is not None and (float(value).is_integer() or abs(value) < 1e-3):
        return f"{value:g}"
    return number(value)


def signed(value: float | None) -> str:
    """+0.0041 or −0.0013."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def duration(value: float) -> str:
    """0.4 s, 75 s, 12 min 5 s."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value // 60:.0f} min {value % 60:.0f} s"


def when(text: str) -> str:
    """2026-11-24T15:20:01.123Z as 2026-11-24 15:20:01 UTC."""
    return f"{text[:10]} {text[11:19]} UTC"


def printable(text: str) -> str:
    """A name from outside with its control characters made visible, so that it cannot reorder a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def png(pixels: NDArray[np.uint8]) -> str:
    """uint8 H x W x C (1 or 3 channels) as a PNG data URI."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


# --- what the template sees ----------------------------------------------------------------------


def _view(c: Contents) -> dict[str, Any]:
    from markupsafe import Markup

    scores, champion = c.evaluation.candidate_scores, c.evaluation.champion_scores
    theirs = champion.metrics if champion else {}
    names = [name for name in METRICS if name in scores.metrics]
    cv = c.document["cv"]
    classes = c.manifest.classes
    # The plots are ours, made of numbers alone: they are markup and not text.
    curves = [Markup(svg) for metric in ("loss", "accuracy") if (svg := plots.curves(c.fits, c.final, metric))]
    totals = {n: sum(getattr(o, n) for o in c.outcomes) for n in ("arrived", "accepted", "quarantined", "known")}
    return {
        "c": c,
        "document": c.document,
        "title": f"{c.config.name}: {c.verdict.verdict}",
        "rules": [(_mark(rule), rule) for rule in c.verdict.rules],
        "outcomes": list(reversed(c.outcomes))[:MOST_BATCHES],
        "hidden_batches": max(0, len(c.outcomes) - MOST_BATCHES),
        "totals": totals,
        "reasons": sorted(_reasons(c.outcomes).items(), key=lambda r: (-r[1], r[0])),
        "failed": [(o, e) for o in c.outcomes for e in o.expectations if not e.success],
        "comparison": [_compared(name, scores.metrics[name], theirs.get(name)) for name in names],
        "metrics": [name for name in METRICS if name in cv],
        "fold_count": len(c.fits),
        "folds_plot": Markup(plots.folds(cv, [n for n in METRICS if n != "log_loss"])),
        "curves": curves,
        "classes": classes,
        "longest": max(len(name) for name in classes),
        "matrix": _matrix(scores.confusion) if len(classes) <= MOST_CLASSES else None,
        "confusions": _confusions(scores.confusion, classes),
        "per_class": _per_class(c),
        "mistakes": [(m, png(_thumbnail(m.pixels))) for m in c.mistakes[:MOST_MISTAKES]],
        "wrong": sum(n for t, row in enumerate(scores.confusion) for p, n in enumerate(row) if t != p),
        "stages": _stages(c.document["seconds"]),
        "config": json.dumps(c.config.model_dump(mode="json"), indent=2, ensure_ascii=False),
    }


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every n-th pixel of a large picture: 24 of them must not make a file of many megabytes."""
    step = -(-max(pixels.shape[:2]) // LARGEST_PICTURE)
    return pixels[::step, ::step]


def _compared(name: str, mine: float | None, theirs: float | None) -> tuple[str, float | None, float | None, str]:
    """(metric, candidate, champion, how the difference is marked); of a loss, less is better."""
    if mine is None or theirs is None or mine == theirs:
        return name, mine, theirs, ""
    return name, mine, theirs, "passed" if (mine > theirs) != (name == "log_loss") else "failed"


def _mark(rule: RuleResult) -> str:
    return {True: "passed", False: "failed", None: "none"}[rule.passed]


def _reasons(outcomes: Sequence[Outcome]) -> Counter[str]:
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.reasons)
    return total


def _matrix(confusion: Sequence[Sequence[int]]) -> list[list[tuple[int, float, bool]]]:
    """(count, share of its row, is it right) for each cell, rows and columns in class order."""
    return [
        [(count, round(count / max(1, sum(row)), 3), t == p) for p, count in enumerate(row)]
        for t, row in enumerate(confusion)
    ]


def _confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """(true, predicted, count, examples of the true class), the most frequent first."""
    found = [
        (classes[t], classes[p], count, sum(row))
        for t, row in enumerate(confusion)
        for p, count in enumerate(row)
        if t != p and count
    ]
    return sorted(found, key=lambda f: -f[2])[:MOST_CONFUSIONS]


def _per_class(c: Contents) -> list[tuple[str, int, int, list[float | None], float | None]]:
    """(class, training examples, holdout examples, [precision, recall, f1], the champion's recall)."""
    scores, champion = c.evaluation.candidate_scores, c.evaluation.champion_scores
    return [
        (
            name,
            c.split.train_per_class.get(name, 0),
            c.split.holdout_per_class.get(name, 0),
            [scores.metrics.get(f"{metric}[{name}]") for metric in CLASS_METRICS],
            champion.metrics.get(f"recall[{name}]") if champion else None,
        )
        for name in c.manifest.classes
    ]


def _stages(seconds: dict[str, float]) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of the longest)."""
    longest = max(seconds.values(), default=0) or 1
    return [(stage, value, round(value / longest, 3)) for stage, value in seconds.items()]
