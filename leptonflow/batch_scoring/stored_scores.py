"""What `score` of a pipeline's YAML asks for: its source, scored by the champion to files on the store, manifest last.

Each run has a folder of its own, by the time for which it was scheduled: the same run, resumed on whatever machine,
keeps what is finished there. What does not belong here: when it runs (flows).
"""

from __future__ import annotations

import json
import time
from typing import Any

from leptonflow.batch_scoring import scoring_job
from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.storage.objects import adopt, parsed
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import ConfigurationError


def score(store: Store, config: Pipeline, at: str) -> dict[str, Any]:
    """The manifest of the scores of one run: pipeline, version, source, output, at, rows, failed, kept, runtime, files.

    at: the time for which the run was scheduled, as a part of a key, such as 20261128T030000Z. Safe to repeat: a run
    that is finished is read. Raises ConfigurationError where the YAML has no `score`, and as `scoring_job.score` does.
    """
    section = config.score
    if section is None:
        raise ConfigurationError(
            f"the pipeline {config.name} has nothing to score", expected="a section `score` in its YAML",
            received="none", hint="docs/scoring.md describes it",
        )  # fmt: skip
    folder = store_keys.scores_folder(config.name, section.output, at)
    key = f"{folder}/manifest.json"
    if store.size(key) is None:
        began = time.monotonic()
        found = scoring_job.score(store, config, [section.source], store, f"{folder}/", processes=section.processes)
        manifest = {
            **found.document(), "source": section.source, "output": section.output, "at": at,
            "finished_at": clock.now(), "seconds": round(time.monotonic() - began, 3),
            "files": [part.model_dump() for part in found.parts],
        }  # fmt: skip
        adopt(store, key, canonical(manifest))
    return dict(parsed(store, key, json.loads))
