"""`init`: a pipeline YAML and a contract to start from, with comments that say what each key does."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import schemas
from leptonflow import workloads
from schemas.config import NAME, WORKLOADS, parse
from schemas.errors import UsageError

SAMPLE = 200

TEMPLATE = """\
# {name}: an image classifier that retrains itself.
# Land data:   leptonflow ingest {path} SOURCE
# Retrain:     leptonflow retrain {path}
# SOURCE is a folder with one folder per class, a folder with x_data.npy and x_labels.npy, or a .csv or
# .parquet table with a path column and a label column.

name: {name}
workload: {workload}

# Height, width, channels (1: grey, 3: colour). Images of any size are converted and resized to this.
input: [{height}, {width}, {channels}]

{classes}
# What a batch must be like: Great Expectations over its images' facts.
contract: {name}.contract.yaml

# The share of examples that no model ever trains on. Fixed by the first batch.
holdout: {{fraction: 0.2}}

# A batch with a larger share of newly quarantined rows (duplicates apart) is refused whole.
quarantine: {{limit: 0.2}}

# A small CNN: one 3x3 convolution per width, then a dense layer. Or your own: {{function: my_model:build}},
# where build(input_shape, classes) returns a Keras model and my_model.py lies beside this file.
model: {{filters: [32, 64, 64], dense: 64, dropout: 0.0}}

training: {{epochs: 10, batch_size: 32, folds: 5, seed: 0, optimizer: adam, learning_rate: 0.001}}

# Every rule must hold before a candidate becomes the champion. `on` is cv (the folds' mean) or holdout.
gate:
  - {{rule: at_least, metric: accuracy, on: cv, value: 0.5}}
  - {{rule: fold_spread, metric: accuracy, value: 0.1}}
  # Shown to be at most this much worse than the champion, on the same holdout examples, with 0.95 confidence:
  # the smaller the margin, the larger the holdout that shows it (docs/gate-rules.md).
  - {{rule: against_champion, metric: accuracy, margin: 0.03}}

# After how many verdicts on this holdout a warning says that it is worn.
# looks: {{warn: 50}}

# How long each stage may take in one run, in seconds. These are the defaults.
# limits: {{validate: 3600, preprocess: 3600, train: 86400, evaluate: 3600, infra_validate: 600}}

# Which Prefect notification block is told of which ends of a run (rejected-data is one more).
# notify: {{block: custom-webhook/ops, on: [failure, refused, promoted]}}
"""


def write(folder: Path, source: Path | None) -> Path:
    """Write DIR/<name>.yaml and its contract; the YAML's path. Raises UsageError where they exist."""
    name = _name(folder)
    path = folder / f"{name}.yaml"
    contract = folder / f"{name}.contract.yaml"
    for file in (path, contract):
        if file.exists():
            raise UsageError(
                f"{file} exists", expected="a folder without it", received=str(file), hint="Choose another DIR"
            )
    found, shape = ([], (32, 32, 3)) if source is None else _look(source)
    if found:
        listed = ", ".join(_scalar(c) for c in found)
        classes = f"# The classes, in the order of the model's outputs.\nclasses: [{listed}]\n"
    else:
        classes = "# The classes; without this line the first accepted batch fixes them.\n# classes: [cat, dog]\n"
    height, width, channels = shape
    try:
        folder.mkdir(parents=True, exist_ok=True)
        default = Path(schemas.__file__).parent / workloads.load(WORKLOADS[0]).contract
        contract.write_text(default.read_text(encoding="utf-8"), encoding="utf-8")
        path.write_text(
            TEMPLATE.format(
                name=name,
                workload=WORKLOADS[0],
                path=shlex.quote(str(path)),
                height=height,
                width=width,
                channels=channels,
                classes=classes,
            ),
            encoding="utf-8",
        )
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written", expected="a folder to write into", received=error.strerror or str(error)
        ) from None
    return path


def next_steps(path: Path, source: Path | None) -> str:
    """What to type next."""
    quoted = shlex.quote(str(path))
    given = shlex.quote(str(source)) if source else "SOURCE"
    return f"{path}\n\nNext:\n  leptonflow ingest {quoted} {given}\n  leptonflow retrain {quoted}"


def _name(folder: Path) -> str:
    plain = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:50]
    return plain if NAME.fullmatch(plain) else "pipeline"


def _scalar(text: str) -> str:
    """A class name as YAML: quoted wherever it could be read as something else."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z_-]*", text) and text.lower() not in _WORDS else _quoted(text)


_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _look(source: Path) -> tuple[list[str], tuple[int, int, int]]:
    """The classes of SOURCE, and an input shape that fits most of its images."""
    from leptonflow import looking

    shape = (32, 32, 3)
    gate = [{"rule": "at_least", "metric": "accuracy", "value": 0.5}]
    draft = parse(
        {"name": "draft", "workload": WORKLOADS[0], "input": shape, "gate": gate}, where="init", folder=source
    )
    classes, facts = looking.look(source, draft, SAMPLE)
    if not facts:
        return classes, shape
    sizes = Counter((fact["height"], fact["width"]) for fact in facts)
    (height, width), count = sizes.most_common(1)[0]
    fits = count > len(facts) / 2 and 24 <= height <= 128 and 24 <= width <= 128
    channels = 3 if any(fact["channels"] == 3 for fact in facts) else 1
    return classes, (*((height, width) if fits else (64, 64)), channels)
