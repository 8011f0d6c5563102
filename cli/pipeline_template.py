"""`init`: a pipeline YAML and a contract to start from, with a comment for each key."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import schemas
from cli import show
from leptonflow.core.pipeline_files import PIPELINES
from leptonflow.gate.proposed_margin import MARGINS, Proposed, propose
from leptonflow.workloads import catalog
from schemas.config import NAME, WORKLOADS
from schemas.errors import UsageError
from schemas.text import counted, printable

if TYPE_CHECKING:
    from leptonflow.data.ingest.source_summary import Summary
    from leptonflow.workloads.base import Workload

FRACTION = 0.2  # of the holdout
LONGEST_PATH = 200  # characters that an error shows
MOST_RULES = 10  # classes that get a rule of their own
ACCURACY = 0.5  # that the gate requires, where always predicting one class has much less

TEMPLATE = """\
# {name}: {kind} that retrains itself.
# Land data:   leptonflow ingest {path} SOURCE
# Retrain:     leptonflow retrain {path}
{sources}

name: {name}
workload: {workload}

{section}

{classes}
# The data contract: Great Expectations over the metadata of a batch's examples.
contract: {name}.contract.yaml

# The share of examples that no model ever trains on. Fixed by the first batch.
holdout: {{fraction: {fraction:g}}}

{groups}# A batch with a larger share of newly quarantined rows (duplicates not counted) is refused as a whole.
quarantine: {{limit: 0.2}}

{model}

{training}

# Every rule must hold before a candidate becomes the champion. `on` is cv (the folds' mean) or holdout.
gate:
{why_accuracy}  - {{rule: at_least, metric: accuracy, on: cv, value: {accuracy:.4g}}}
{baseline}
  - {{rule: baseline, metric: accuracy, margin: 0.0}}
{small}  - {{rule: fold_spread, metric: accuracy, value: 0.1}}
  # Shown to be at most this much worse than the champion, on the same holdout examples, with 0.95 confidence:
  # the smaller the margin, the larger the holdout that is needed (docs/gate-rules.md).{why_margin}
  - {{rule: against_champion, metric: accuracy, margin: {margin:g}}}

# After how many evaluations on this holdout a warning says that it may be overfitted.
# looks: {{warn: 50}}

# How long each stage may take in one run, in seconds. These are the defaults.
# limits: {{validate: 3600, preprocess: 3600, train: 86400, evaluate: 3600, infra_validate: 600}}

# Deployed (`leptonflow deploy`, `leptonflow up`), it is retrained when a batch arrives, and by a schedule.
# schedule: {{cron: "0 3 * * 1", timezone: Europe/Berlin}}  # Mondays at 3:00

# Of what is served: the share of inputs to keep, and whether drift asks for a retraining (docs/monitoring.md).
# serving: {{log_inputs: {{rate: 0.05}}, monitor: {{retrain: true}}}}

# Which Prefect notification block is notified of which outcomes of a run (rejected-data is one more).
# notify: {{block: custom-webhook/ops, on: [failure, refused, promoted, waiting]}}
# promotion: {{approve: none, timeout: 3d}}  # a person approves what the gate passed; approve: [ana, bo]: one of these
"""


NO_CLASSES = "# The classes; without this line the first accepted batch fixes them.\n# classes: [cat, dog]\n"
GROUP = """\
# Examples that belong together, such as all of one patient, are never on both sides of the holdout. Fixed by the first
"""
GROUPS = {  # what it is, a line of the YAML
    "column": ("a column of the table", "group: {column: patient}"),
    "pattern": ("a field of the files' names", 'group: {pattern: "{patient}_{number}.png", field: patient}'),
    "folder": ("the folder below the class", "group: {folder: parent}"),
}


def write(target: str, summary: Summary | None, source: Path | None = None) -> Path:
    """Write <name>.yaml and its contract; the YAML's path. Raises UsageError where they exist.

    A bare name goes under pipelines/, where every command finds it by its name; a path, or a folder that exists, is the
    folder that is written into. source: the data that was inspected; nothing is written into a folder of data.
    """
    folder, name = _place(target, source)
    path = folder / f"{name}.yaml"
    contract = folder / f"{name}.contract.yaml"
    try:
        for file in (path, contract):
            if file.exists():
                raise UsageError(
                    f"{file} exists",
                    expected="a pipeline that does not exist yet",
                    received=str(file),
                    hint="Choose another name" if folder == PIPELINES else "Choose another DIR",
                )
        folder.mkdir(parents=True, exist_ok=True)
        workload = summary.workload if summary is not None else _default()
        default = Path(schemas.__file__).parent / workload.contract
        contract.write_text(default.read_text(encoding="utf-8"), encoding="utf-8")
        path.write_text(_text(name, reference(path), summary), encoding="utf-8")
    except OSError as error:
        shown = str(folder) if len(str(folder)) < LONGEST_PATH else f"{str(folder)[:LONGEST_PATH]}..."
        raise UsageError(
            f"{shown} cannot be written", expected="a folder to write into", received=error.strerror or str(error)
        ) from None
    return path


def _place(target: str, source: Path | None) -> tuple[Path, str]:
    """(the folder to write into, the pipeline's name)."""
    data = source.resolve() if source is not None and source.is_dir() else None
    bare = not re.search(r"[/\\]", target) and target not in (".", "..")
    if bare and (not _is_folder(target) or (data is not None and Path(target).resolve() == data)):
        return PIPELINES, _checked(target.removesuffix(".yaml"))
    folder = Path(target)
    if data is not None and (folder.resolve() == data or data in folder.resolve().parents):
        raise UsageError(
            "the pipeline's files would lie among the data", expected="a name, or a folder outside of the source",
            received=target, hint="`leptonflow init NAME --from SOURCE` writes pipelines/NAME.yaml",
        )  # fmt: skip
    return folder, _name(folder)


def _is_folder(target: str) -> bool:
    try:
        return bool(target) and Path(target).is_dir()
    except OSError:  # longer than a name can be
        return False


def _checked(target: str) -> str:
    """A pipeline's name as it was given: upper case becomes lower case, and a space a dash. Raises UsageError."""
    name = target.lower().replace(" ", "-")
    if NAME.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    near = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:63]
    raise UsageError(
        "a pipeline cannot have this name",
        expected="1 to 63 of the characters a to z, 0 to 9, `.`, `_` and `-`, a letter or digit first",
        received=repr(target) if len(target) < 80 else f"{target[:20]!r}... of {len(target)} characters",
        hint=f"Such as {near}" if NAME.fullmatch(near) else "Choose another name",
    )


def _text(name: str, path: str, summary: Summary | None) -> str:
    """The YAML: the template filled in from the source."""
    found = list(summary.classes) if summary is not None else []
    if summary is not None and summary.free_text:
        classes = f"# The labels look like free text, and none is proposed as a class.\n{NO_CLASSES}"
    elif len(found) > 1:
        listed = ", ".join(_scalar(c) for c in found)
        classes = f"# The classes, in the order of the model's outputs.\nclasses: [{listed}]\n"
    else:
        classes = NO_CLASSES
    proposal = summary.proposal if summary is not None else _default().propose((), 0, (), None)
    margin = _margin(summary) if summary is not None else None
    share = _largest_share(summary)
    return TEMPLATE.format(
        name=name,
        fraction=FRACTION,
        accuracy=_accuracy(share),
        why_accuracy=_why_accuracy(share),
        groups=_groups(summary),
        margin=margin.margin if margin is not None else MARGINS[0],
        why_margin=f"\n  # Proposed: {margin.sentence}." if margin is not None else "",
        kind=proposal.kind,
        workload=(summary.workload if summary is not None else _default()).name,
        path=shlex.quote(path) if path.isprintable() else "PIPELINE",  # it stands in a comment of one line
        sources=proposal.sources,
        section=proposal.section,
        model=proposal.model,
        training=proposal.training,
        baseline=proposal.baseline,
        classes=classes,
        small=_rules_of_small_classes(summary) if summary is not None else "",
    )


def _largest_share(summary: Summary | None) -> float:
    """Of the largest class; 0 where no classes are proposed."""
    if summary is None or summary.free_text or len(summary.classes) < 2:
        return 0.0
    return max(summary.classes.values()) / sum(summary.classes.values())


def _accuracy(share: float) -> float:
    """What the gate requires: a quarter of what always predicting the largest class gets wrong must be right."""
    return max(ACCURACY, share + (1 - share) / 4)


def _why_accuracy(share: float) -> str:
    if _accuracy(share) == ACCURACY:
        return ""
    return (
        f"  # Always predicting the largest class has an accuracy of {share:.4g}; this is a quarter of the way from\n"
        "  # there to 1. Write here what your use needs.\n"
    )


def _margin(summary: Summary) -> Proposed:
    return propose(sum(summary.classes.values()), FRACTION)


def lines(summary: Summary) -> list[str]:
    """What is told to a person of the source and of what is proposed for it."""
    found = _margin(summary)
    return [*summary.lines(), f"{'margin':<8} {found.margin:g}: {found.sentence}"]


def _groups(summary: Summary | None) -> str:
    """The comment on `group`, with the ways that such a source can have; none for arrays."""
    ways = [way for way in GROUPS if summary is None or way in summary.group_ways]
    if not ways:
        return ""
    one = f"One of: {', '.join(GROUPS[way][0] for way in ways)}" if len(ways) > 1 else f"By {GROUPS[ways[0]][0]}"
    return GROUP + "".join(f"# {line}\n" for line in (f"batch. {one}.", *(GROUPS[way][1] for way in ways))) + "\n"


def _default() -> Workload:
    """What a pipeline without a source is of."""
    return catalog.load(WORKLOADS[0])


def _rules_of_small_classes(summary: Summary) -> str:
    """A rule for each class that a model could leave out and still have a good accuracy."""
    if summary.free_text:
        return ""
    named = [name for name in summary.small_classes() if name.isprintable()][:MOST_RULES]
    if not named:
        return ""
    most = max(summary.classes.values())
    told = ["  # Classes with few examples: a model that never predicts them can still have a good accuracy."]
    for name in named:
        metric = _quoted(f"recall[{name}]")
        told.append(f"  # {counted(summary.classes[name], 'example')}, of {most} in the largest class.")
        told.append(f"  - {{rule: at_least, metric: {metric}, on: cv, value: 0.2}}")
    return "\n".join(told) + "\n"


def reference(path: Path) -> str:
    """What commands call a pipeline: its name under pipelines/, else its path."""
    return path.stem if path.parent == PIPELINES else str(path)


def next_steps(path: Path, source: Path | None, given: list[str]) -> str:
    """The next commands. given: the options that the source was inspected with."""
    pipeline = shlex.quote(reference(path))
    rest = " ".join(shlex.quote(word) for word in [str(source) if source else "SOURCE", *given])
    steps = "".join(f"\n  {show.typed(step)}" for step in (f"ingest {pipeline} {rest}", f"retrain {pipeline}"))
    written = f"wrote {path} and {path.stem}.contract.yaml beside it; edit them, or use them as they are"
    return f"{printable(written)}\n\nNext:{steps}"


def options(path_column: str | None, label_column: str | None, root: Path | None) -> list[str]:
    """The options of a table as they are typed."""
    given = (("--path-column", path_column), ("--label-column", label_column), ("--root", root))
    return [word for option, value in given if value is not None for word in (option, str(value))]


def _name(folder: Path) -> str:
    """What a pipeline in that folder is called, whatever the folder is."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:50]
    return plain if NAME.fullmatch(plain) else "pipeline"


def _scalar(text: str) -> str:
    """A class name as YAML: quoted wherever it could be read as something else."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]*", text) and text.lower() not in _WORDS else _quoted(text)


_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
