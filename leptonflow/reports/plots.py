"""A report's plots, as SVG that takes its colours from the page: the same for light, dark and print.

Drawn with matplotlib's object interface (no pyplot, no display, no global figure). Only numbers and
our own metric names are drawn: a class name from outside never reaches matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from schemas.records import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leptonflow.gate.simulation import Curve
    from leptonflow.workloads.classification_errors import Bin

# Colours that no palette has, replaced by the page's own afterwards.
_INK, _FAINT, _FOLD, _TRAIN, _FINAL = "#010203", "#010204", "#010205", "#010206", "#010207"
_PAGE = {
    _INK: "var(--muted)", _FAINT: "var(--line)", _FOLD: "var(--series-1)", _TRAIN: "var(--series-2)",
    _FINAL: "var(--series-3)",
}  # fmt: skip
_STYLE: Any = {  # matplotlib types each key by name
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_Points = tuple[tuple[int, ...], tuple[float, ...]]  # epochs, values
_WIDTH, _HEIGHT = 4.6, 2.5  # inches: still legible at the width of a phone


def folds(cv: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """Each fold as a dot and the mean as a bar, one row per metric in 0..1; "" where there is nothing to draw."""
    shown = [name for name in names if cv.get(name, {}).get("mean") is not None]
    if not shown:
        return ""
    with _axes("folds", height=0.75 + 0.38 * len(shown)) as (figure, axes):
        for row, name in enumerate(shown):
            values = [value for value in cv[name]["folds"] if value is not None]
            axes.plot(values, [row] * len(values), "o", color=_FOLD, markersize=6, alpha=0.75, markeredgewidth=0)
            axes.plot([cv[name]["mean"]] * 2, [row - 0.3, row + 0.3], color=_TRAIN, linewidth=2)
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.grid(axis="y", visible=False)
        return _svg(figure, "folds")


def measured(final: FitResult) -> list[str]:
    """What was measured of the training examples, epoch by epoch: the loss first."""
    return list(dict.fromkeys(each.metric for each in final.epochs if not each.metric.startswith(("val_", "stop_"))))


def curves(fits: Sequence[FitResult], final: FitResult, metric: str) -> str:
    """A metric over the epochs: each fold's training and held-out curve, and the final fit; "" without values."""
    lines = (
        *((_curve(fit, metric), _TRAIN, "fold, training", 1.0) for fit in fits),
        *((_curve(fit, f"val_{metric}"), _FOLD, "fold, held out", 1.0) for fit in fits),
        (_curve(final, metric), _FINAL, "final fit, training", 2.0),
    )
    return _drawn(metric, tuple(line for line in lines if line[0][0]))


def _curve(fit: FitResult, metric: str) -> _Points:
    points = [(e.epoch, e.value) for e in fit.epochs if e.metric == metric]
    return tuple(epoch for epoch, _ in points), tuple(value for _, value in points)


@lru_cache(maxsize=4)  # the report and the Prefect UI show the same curves, and drawing one takes 80 ms
def _drawn(metric: str, lines: tuple[tuple[_Points, str, str, float], ...]) -> str:
    if not lines:
        return ""
    from matplotlib.ticker import MaxNLocator

    with _axes(metric, height=_HEIGHT) as (figure, axes):
        named: set[str] = set()
        for (epochs, values), colour, label, width in lines:
            # A label that starts with _ has no entry in the legend: one entry for all folds is enough.
            shown = f"_{label}" if label in named else label
            named.add(label)
            style = "o" if len(epochs) == 1 else "-"
            axes.plot(epochs, values, style, color=colour, linewidth=width, markersize=5, label=shown)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_title(metric, loc="left", fontsize=10)
        axes.legend(loc="best")
        return _svg(figure, metric)


def reliability(candidate: Sequence[Bin], champion: Sequence[Bin] = ()) -> str:
    """Accuracy by predicted probability, beside the diagonal of a calibrated model; "" without bins.

    After Niculescu-Mizil and Caruana (2005). A dot is a bin, its area grows with the bin's examples; the
    candidate's dots carry the intervals of their shares.
    """
    if not candidate:
        return ""
    with _axes("reliability", height=3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        for bins, colour, label in ((champion, _TRAIN, "champion"), (candidate, _FOLD, "candidate")):
            if not bins:
                continue
            total = sum(each.share.n for each in bins)
            sure, right = [each.confidence for each in bins], [each.share.value or 0.0 for each in bins]
            axes.plot(sure, right, "-", color=colour, linewidth=1.4, label=label)
            areas = [14 + 110 * each.share.n / total for each in bins]
            axes.scatter(sure, right, s=areas, color=colour, alpha=0.8, linewidths=0, zorder=3)
            if bins is candidate:
                ends = [(each.share.low or 0.0, each.share.high or 0.0) for each in bins]
                axes.vlines(sure, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=1.2)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("accuracy")
        figure.legend(loc="outside upper center", ncols=3)  # no corner of the diagram is sure to be empty
        return _svg(figure, "reliability")


def operating_curve(curve: Curve) -> str:
    """Chance of promotion against true difference: computed as a line, simulated as dots, the bound and the power."""
    from matplotlib.ticker import MaxNLocator

    with _axes("operating", height=_HEIGHT) as (figure, axes):
        differences = [point.difference for point in curve.points]
        axes.axhline(curve.power, color=_INK, linewidth=1, linestyle=(0, (1, 2)), label="wanted")
        axes.axvline(-curve.margin, color=_TRAIN, linewidth=1.2, linestyle="--", label="bound")
        axes.plot(differences, [p.computed for p in curve.points], "-", color=_FINAL, linewidth=2, label="computed")
        simulated = [point.promoted for point in curve.points]
        axes.plot(differences, simulated, "o", color=_FOLD, markersize=4, markeredgewidth=0, label="simulated")
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-9 else "0")
        axes.set_xlabel("true difference in accuracy, candidate − champion")
        axes.set_title("chance of promotion", loc="left", fontsize=10)
        axes.legend(loc="best")
        return _svg(figure, "operating")


def study(complete: Mapping[int, float], pruned: Mapping[int, float], metric: str, higher_is_better: bool) -> str:
    """The value of each trial by its number, and the best complete one so far as a line; "" without values."""
    from matplotlib.ticker import MaxNLocator

    if not complete and not pruned:
        return ""
    best = max if higher_is_better else min
    numbers, values = list(complete), list(complete.values())
    with _axes("study", height=_HEIGHT) as (figure, axes):
        axes.plot(numbers, values, "o", color=_FOLD, markersize=5, alpha=0.75, label="complete")
        axes.plot(list(pruned), list(pruned.values()), "x", color=_INK, markersize=5, label="pruned")
        so_far = [best(values[: count + 1]) for count in range(len(values))]
        axes.step(numbers, so_far, where="post", color=_TRAIN, linewidth=1.6, label="best so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_title(metric, loc="left", fontsize=10)
        axes.legend(loc="best")
        return _svg(figure, "study")


@contextmanager
def _axes(salt: str, height: float) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> to stand inside a page: no ids that collide, no namespaces, the page's colours."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for ours, theirs in _PAGE.items():
        text = text.replace(ours, theirs)
    return re.sub(r">\s+<", "><", text)
