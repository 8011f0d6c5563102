"""What deployments/ says, read for the tests: the services of compose.yaml, the manifests, the Job of a flow run.

What does not belong here: pytest, and running any of it (tests/compose.py).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests import compose
from tests.compose import FOLDER, ROOT, Document

KUBERNETES = FOLDER / "kubernetes"
SECRETS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "POSTGRES_PASSWORD", "PREFECT_AUTH_STRING", "LEPTONFLOW_API_KEYS",
}  # fmt: skip
OURS = re.compile(r"leptonflow:")


def filled() -> dict[str, str]:
    """An environment with every required variable of compose.yaml set."""
    return {**compose.example(), **{name: f"value-of-{name}" for name in SECRETS}}


def services() -> Document:
    """Name -> service of compose.yaml, its variables filled in."""
    return dict(compose.document(filled())["services"])


def our_services() -> Document:
    """Those that run our image."""
    return {name: each for name, each in services().items() if OURS.match(each["image"])}


@functools.cache
def manifests() -> tuple[Document, ...]:
    """Every object of the files that kustomization.yaml lists, and the example of the secrets."""
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    texts = [(KUBERNETES / name).read_text(encoding="utf-8") for name in [*listed, "secret.example.yaml"]]
    return tuple(document for text in texts for document in yaml.safe_load_all(text))


def manifest(kind: str, name: str) -> Document:
    """The one object of that kind and name."""
    (found,) = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def template() -> Document:
    """base-job-template.json."""
    return dict(json.loads((KUBERNETES / "base-job-template.json").read_text(encoding="utf-8")))


def job(**values: str) -> Document:
    """The Job of a flow run as Prefect's templating makes it from the defaults, and from `values`."""
    from prefect.utilities.templating import apply_values

    read = template()
    defaults = {name: each.get("default") for name, each in read["variables"]["properties"].items()}
    given = {**defaults, "name": "run", "command": "prefect flow-run execute", "env": {}, **values}
    return dict(apply_values(read["job_configuration"]["job_manifest"], given))


def pods() -> Iterator[tuple[str, Document]]:
    """(name, pod spec) of each workload, the run's Job among them."""
    for document in (*manifests(), job()):
        if "template" in document.get("spec", {}):
            yield document["metadata"].get("name", "run"), document["spec"]["template"]["spec"]


def containers() -> Iterator[tuple[str, Document]]:
    """(workload/name, container) of each pod, init containers too."""
    for name, pod in pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}/{container['name']}", container


def pins(lock: Path) -> dict[str, str]:
    """package -> version of a lock; of a package with one for each Python, the oldest Python's."""
    found = re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(reversed(found))


def version() -> str:
    """The project's."""
    import tomllib

    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
