"""`init`: a pipeline YAML and a contract to start from, with a comment for each key."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import schemas
from cli import show
from leptonflow.core.pipeline_files import PIPELINES
from leptonflow.workloads import catalog
from schemas.config import NAME, WORKLOADS
from schemas.errors import UsageError
from schemas.text import printable

if TYPE_CHECKING:
    from leptonflow.data.ingest.source_summary import Summary
    from leptonflow.workloads.base import Workload

MOST_RULES = 10  # classes that get a rule of their own

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
holdout: {{fraction: 0.2}}

# Examples that belong together, such as all of one patient, are never on both sides of the holdout. Fixed by the first
# batch. One of: a column of the table, a field of the files' names, the folder below the class.
# group: {{column: patient}}
# group: {{pattern: "{{patient}}_{{number}}.png", field: patient}}
# group: {{folder: parent}}

# A batch with a larger share of newly quarantined rows (duplicates not counted) is refused as a whole.
quarantine: {{limit: 0.2}}

{model}

{training}

# Every rule must hold before a candidate becomes the champion. `on` is cv (the folds' mean) or holdout.
gate:
  - {{rule: at_least, metric: accuracy, on: cv, value: 0.5}}
{baseline}
  - {{rule: baseline, metric: accuracy, margin: 0.0}}
{small}  - {{rule: fold_spread, metric: accuracy, value: 0.1}}
  # Shown to be at most this much worse than the champion, on the same holdout examples, with 0.95 confidence:
  # the smaller the margin, the larger the holdout that is needed (docs/gate-rules.md).
  - {{rule: against_champion, metric: accuracy, margin: 0.03}}

# After how many evaluations on this holdout a warning says that it may be overfitted.
# looks: {{warn: 50}}

# How long each stage may take in one run, in seconds. These are the defaults.
# limits: {{validate: 3600, preprocess: 3600, train: 86400, evaluate: 3600, infra_validate: 600}}

# Which Prefect notification block is notified of which outcomes of a run (rejected-data is one more).
# notify: {{block: custom-webhook/ops, on: [failure, refused, promoted]}}
"""


def write(target: str, summary: Summary | None) -> Path:
    """Write <name>.yaml and its contract; the YAML's path. Raises UsageError where they exist.

    A bare name goes under pipelines/, where every command finds it by its name; a path, or a folder that exists, is the
    folder that is written into.
    """
    bare = not re.search(r"[/\\]", target) and target not in (".", "..") and not Path(target).is_dir()
    folder = PIPELINES if bare else Path(target)
    name = _name(Path(target.removesuffix(".yaml") if bare else target))
    path = folder / f"{name}.yaml"
    contract = folder / f"{name}.contract.yaml"
    for file in (path, contract):
        if file.exists():
            raise UsageError(
                f"{file} exists",
                expected="a pipeline that does not exist yet",
                received=str(file),
                hint="Choose another name" if bare else "Choose another DIR",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        workload = summary.workload if summary is not None else _default()
        default = Path(schemas.__file__).parent / workload.contract
        contract.write_text(default.read_text(encoding="utf-8"), encoding="utf-8")
        path.write_text(_text(name, reference(path), summary), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written", expected="a folder to write into", received=error.strerror or str(error)
        ) from None
    return path


def _text(name: str, path: str, summary: Summary | None) -> str:
    """The YAML: the template filled in from the source."""
    found = list(summary.classes) if summary is not None else []
    if len(found) > 1:
        listed = ", ".join(_scalar(c) for c in found)
        classes = f"# The classes, in the order of the model's outputs.\nclasses: [{listed}]\n"
    else:
        classes = "# The classes; without this line the first accepted batch fixes them.\n# classes: [cat, dog]\n"
    proposal = summary.proposal if summary is not None else _default().propose((), 0, (), None)
    return TEMPLATE.format(
        name=name,
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


def _default() -> Workload:
    """What a pipeline without a source is of."""
    return catalog.load(WORKLOADS[0])


def _rules_of_small_classes(summary: Summary) -> str:
    """A rule for each class that a model could leave out and still have a good accuracy."""
    named = [name for name in summary.small_classes() if name.isprintable()][:MOST_RULES]
    if not named:
        return ""
    most = max(summary.classes.values())
    told = ["  # Classes with few examples: a model that never predicts them can still have a good accuracy."]
    for name in named:
        metric = _quoted(f"recall[{name}]")
        told.append(f"  # {summary.classes[name]} examples, of {most} in the largest class.")
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
    plain = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:50]
    return plain if NAME.fullmatch(plain) else "pipeline"


def _scalar(text: str) -> str:
    """A class name as YAML: quoted wherever it could be read as something else."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]*", text) and text.lower() not in _WORDS else _quoted(text)


_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
