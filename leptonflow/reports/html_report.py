"""A run's report: one HTML file that opens offline, in light and dark, on a phone and on paper.

`render` is a pure function of recorded things. Names come from outside and are hostile: everything
is escaped by the template, and the page's own policy forbids scripts and every request. Gathering
what the report shows belongs to `gathering`, how a value is written to `wording`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leptonflow.data.validation.drift import ClassShare, Drift
from leptonflow.evaluation.metric_intervals import Between
from leptonflow.reports import pages, plots
from leptonflow.reports.wording import cost, label, when
from leptonflow.training import fit_cost
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Shown
from leptonflow.workloads.classification_errors import Analysis, Example, Group
from schemas.config import Pipeline
from schemas.metrics import CLASSIFICATION
from schemas.records import Evaluation, FitResult, InfraResult, ModelManifest, Outcome, RuleResult, Split, Verdict
from schemas.text import printable
from schemas.workloads import lower_is_better, overall

if TYPE_CHECKING:
    from leptonflow.gate.explanation import Change
    from leptonflow.gate.simulation import Curve

MOST_BATCHES = 20
MOST_SHIFTS = 10
TOLD_ABOVE = ("snapshot", "code")  # of a lineage
STAGES = (  # in the order of the flow; `seconds` is recorded by name
    "discover", "validate", "preprocess", "split", "begin", "train-fold", "fit-final", "package", "find-champion",
    "evaluate", "infra-validate", "gate", "promote",
)  # fmt: skip
MEASURED = {  # what the value of a rule without a metric is, and its unit
    "latency": ("95th percentile, one example", "ms"),
    "size": ("of the package", "MB"),
    "infra_validate": ("largest difference", ""),
    "same-predictions": ("largest difference", ""),
    "stale-snapshot": ("record of the log", ""),
}
LEAST_EFFECT = 0.02  # of a word that is marked
MOST_TELLING = 5  # words of a text whose effects are given as numbers


@dataclass(frozen=True)
class Operating:
    """The operating curve of the gate's paired rule, and what its discordance was seen on or assumed from."""

    curve: Curve
    source: str


@dataclass(frozen=True)
class Contents:
    """What a report shows."""

    config: Pipeline
    document: dict[str, Any]  # of `retrain`
    started_at: str
    finished_at: str
    verdict: Verdict
    paragraph: str  # the verdict, the reason that decided, what would change it
    evaluation: Evaluation
    fits: tuple[FitResult, ...]
    final: FitResult
    manifest: ModelManifest
    split: Split
    infra: InfraResult
    outcomes: tuple[Outcome, ...]  # of the batches that the dataset holds and of those that this run refused
    analysis: Analysis | None  # of a classification
    between: Mapping[str, Between]  # by metric
    shown: Mapping[int, Shown]  # of `analysis.shown`, as the workload shows them
    code: dict[str, str]
    note: str = ""  # on how they are shown
    drift: Drift | None = None  # of the newest batch, where there is one before it
    changes: Sequence[Change] = ()  # what would have turned over each rule that failed
    operating: Operating | None = None  # where the gate holds the candidate's accuracy against a champion's


def render(contents: Contents) -> bytes:
    """The report as one HTML file (UTF-8) with no reference to anything outside itself."""
    return pages.shared().get_template("report.html.j2").render(**_view(contents)).encode("utf-8", "replace")


# --- what the template sees ----------------------------------------------------------------------


def _view(c: Contents) -> dict[str, Any]:
    from markupsafe import Markup

    found = c.analysis
    slices = _slices(c.verdict.rules)
    lineage = [row for row in _lineage(getattr(c.manifest, "lineage", None)) if row[0].split()[0] not in TOLD_ABOVE]
    cv = c.document["cv"]
    # The plots are ours, made of numbers alone: they are markup and not text.
    curves = [Markup(svg) for metric in plots.measured(c.final) if (svg := plots.curves(c.fits, c.final, metric))]
    names = overall(cv)
    totals = {n: sum(getattr(o, n) for o in c.outcomes) for n in ("arrived", "accepted", "quarantined", "known")}
    return {
        "c": c,
        "a": found,
        "document": c.document,
        "title": f"{c.config.name}: {c.verdict.verdict}",
        "rules": [(_mark(rule), rule) for rule in c.verdict.rules if rule.slice is None],
        "changes": {
            (e.rule, e.metric, e.slice, e.bound): e.sentence
            for e in c.changes
            if e.needed is not None or not e.reachable
        },
        "measured": MEASURED,
        "warnings": [warning for warning in c.verdict.warnings if warning not in c.paragraph],
        "slices": slices,
        "telling": [rule for group in slices for rule in group.telling],
        "outcomes": list(reversed(c.outcomes))[:MOST_BATCHES],
        "hidden_batches": max(0, len(c.outcomes) - MOST_BATCHES),
        "totals": totals,
        "reasons": reasons(c.outcomes),
        "shifts": _shifts(c.drift),
        "failed": [(o, e) for o in c.outcomes for e in o.expectations if not e.success],
        "comparison": _comparison(c),
        "metrics": names,
        "fold_count": len(c.fits),
        "cost": cost(spent) if (spent := fit_cost.together((*c.fits, c.final))) else None,
        "folds_plot": Markup(plots.folds(cv, [name for name in names if not lower_is_better(name)])),
        "curves": curves,
        **({} if found is None else _errors(c, found)),
        "operating_curve": Markup(plots.operating_curve(c.operating.curve)) if c.operating else "",
        "told": catalog.load(c.manifest.workload).told(c.manifest.input),
        "stages": _stages(c.document["seconds"]),
        "lineage": lineage,
        "libraries": {} if lineage else c.manifest.libraries,
        "config": _yaml(c.config),
    }


@dataclass(frozen=True)
class _Sample:
    """An example of a sheet. thumbnail, overlay: their addresses. pieces: (a part of its text, its effect).

    telling: the words with the largest effects, and these.
    """

    example: Example
    thumbnail: str | None
    overlay: str | None
    pieces: list[tuple[str, float]]
    telling: list[tuple[str, float]]


def _errors(c: Contents, found: Analysis) -> dict[str, Any]:
    """What is shown of a classification."""
    from markupsafe import Markup

    classes, theirs = c.manifest.classes, found.champion_reliability
    return {
        "classes": classes,
        "longest": max(len(label(name)) for name in classes),
        "matrix": found.matrix.rows,
        "mistakes": found.matrix.mistakes,
        "per_class": _per_class(c, found),
        "per_batch": _per_batch(c, found),
        "per_slice": {name: [group for group in rows if group.candidate.n] for name, rows in found.per_slice.items()},
        "reliability": Markup(plots.reliability(found.reliability.bins, theirs.bins if theirs else ())),
        "worst": _sheet(found.worst, c.shown),
        "lost": _sheet(found.lost, c.shown),
        "won": _sheet(found.won, c.shown),
    }


def _sheet(examples: Sequence[Example], shown: Mapping[int, Shown]) -> list[_Sample]:
    """Those of the examples that can be shown."""
    found = ((example, shown[example.index]) for example in examples if example.index in shown)
    return [_Sample(example, each.thumbnail, each.overlay, _pieces(each), _telling(each)) for example, each in found]


def _pieces(shown: Shown) -> list[tuple[str, float]]:
    """A text in parts, on one line; 0.0 is the effect of what has none worth a mark, or was not tried."""
    text, pieces, at = shown.text or "", list[tuple[str, float]](), 0
    for mark in shown.marks:
        if abs(mark.effect) >= LEAST_EFFECT:
            pieces += [(text[at : mark.start], 0.0), (text[mark.start : mark.end], mark.effect)]
            at = mark.end
    return [(re.sub(r"\s+", " ", part), effect) for part, effect in (*pieces, (text[at:], 0.0)) if part]


def _telling(shown: Shown) -> list[tuple[str, float]]:
    """The words with the largest effects, each once."""
    found: dict[str, tuple[str, float]] = {}
    for mark in sorted(shown.marks, key=lambda mark: -abs(mark.effect)):
        word = (shown.text or "")[mark.start : mark.end]
        if abs(mark.effect) >= LEAST_EFFECT:
            found.setdefault(word.casefold(), (word, mark.effect))
    return list(found.values())[:MOST_TELLING]


@dataclass(frozen=True)
class _Compared:
    """One metric of candidate and champion, with what is known of chance in it."""

    name: str
    mine: float | None
    theirs: float | None
    mark: str  # how the difference is marked
    between: Between

    @property
    def difference(self) -> float | None:
        return None if self.mine is None or self.theirs is None else self.mine - self.theirs


def _comparison(c: Contents) -> list[_Compared]:
    """Each metric over all examples, of both, with its intervals."""
    scores, champion = c.evaluation.candidate_scores.metrics, c.evaluation.champion_scores
    theirs = champion.metrics if champion else {}
    nothing = Between(None)
    return [
        _Compared(
            name, scores[name], theirs.get(name), _better(name, scores[name], theirs.get(name)),
            c.between.get(name, nothing),
        )
        for name in overall(scores)
    ]  # fmt: skip


def _better(name: str, mine: float | None, theirs: float | None) -> str:
    """How the difference is marked; of a loss, less is better."""
    if mine is None or theirs is None or mine == theirs:
        return ""
    return "passed" if (mine > theirs) != lower_is_better(name) else "failed"


@dataclass(frozen=True)
class _Slices:
    """The rules of one kind of slice: per class, per batch, per bucket of a fact."""

    kind: str
    telling: list[tuple[str, RuleResult]]  # (mark, rule) of those that failed or could not be judged
    passed: list[tuple[str, RuleResult]]

    @property
    def count(self) -> int:
        return len(self.telling) + len(self.passed)


def _slices(rules: Sequence[RuleResult]) -> list[_Slices]:
    """The slices by kind, in the order of the verdict; what was refused first, then what was too small to judge."""
    groups: dict[str, list[tuple[str, RuleResult]]] = {}
    for rule in rules:
        if rule.slice is not None:
            groups.setdefault(rule.slice.split("=")[0], []).append((_mark(rule), rule))
    return [
        _Slices(
            kind,
            telling=[r for mark in ("failed", "none") for r in found if r[0] == mark],
            passed=[r for r in found if r[0] == "passed"],
        )
        for kind, found in groups.items()
    ]


def _mark(rule: RuleResult) -> str:
    return {True: "passed", False: "failed", None: "none"}[rule.passed]


def reasons(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    """(rule, quarantined rows) over some batches, the most frequent first."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.reasons)
    return sorted(total.items(), key=lambda each: (-each[1], each[0]))


def _shifts(drift: Drift | None) -> list[ClassShare]:
    """The classes whose share moved most, MOST_SHIFTS at most."""
    moved = [share for share in drift.classes if share.newest != share.rest] if drift else []
    return sorted(moved, key=lambda share: -abs(share.newest - share.rest))[:MOST_SHIFTS]


@dataclass(frozen=True)
class _Class:
    """A class's row. values: precision, recall, f1."""

    group: Group
    values: list[float | None]
    train: int


def _per_class(c: Contents, found: Analysis) -> list[_Class]:
    scores = c.evaluation.candidate_scores.metrics
    return [
        _Class(
            group,
            [scores.get(f"{metric}[{group.name}]") for metric in CLASSIFICATION.of_class],
            c.split.train_per_class.get(group.name, 0),
        )
        for group in found.per_class
    ]


def _per_batch(c: Contents, found: Analysis) -> list[Group]:
    """The newest batches first, MOST_BATCHES at most."""
    age = {outcome.batch: number for number, outcome in enumerate(c.outcomes)}
    return sorted(found.per_batch, key=lambda group: -age.get(group.name, -1))[:MOST_BATCHES]


def _lineage(found: Any) -> list[tuple[str, str]]:
    """What a manifest tells of its origin as (name, value), the libraries in one row; [] without any.

    What nobody could tell is left out, but for the commit: that there was no repository is told.
    """
    plain = found.model_dump(mode="json") if hasattr(found, "model_dump") else found
    if not isinstance(plain, Mapping):
        return []
    rows: list[tuple[str, str]] = []
    for name, value in plain.items():
        if isinstance(value, Mapping) and name == "libraries":
            rows.append((name, ", ".join(f"{library} {version}" for library, version in value.items())))
        elif isinstance(value, Mapping):
            rows += [(f"{name} {within}", text) for within, text in _lineage(value)]
        elif name == "git_commit" and value is None:
            rows.append((name, "none: the pipeline's folder is in no git repository"))
        elif value not in (None, "", [], {}):
            rows.append((str(name), when(value) if str(name).endswith("_at") else _plain(value)))
    return [(name.replace("_", " "), text) for name, text in rows]


def _yaml(config: Pipeline) -> str:
    """The configuration as a pipeline's YAML is written, a rule on a line, with every default."""
    import yaml

    text = yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
    return "\n".join(printable(line) for line in text.splitlines())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _stages(seconds: dict[str, float]) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of the longest), in the order of the flow; a stage of another release comes last."""
    longest = max(seconds.values(), default=0) or 1
    order = sorted(seconds, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))
    return [(stage, seconds[stage], round(seconds[stage] / longest, 3)) for stage in order]
