"""What a folder wants registered on a Prefect server: prefect.yaml's deployments, and a pipeline that it leaves out.

The pipeline's YAML is the truth for schedule and debounce; prefect.yaml says where it runs (work pool, tags, further
parameters). Read before anything is registered, and without Prefect. What does not belong here: the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leptonflow.core import pipeline_files
from leptonflow.core.pipeline_files import PIPELINES, load_config
from schemas.arrivals import FLOW, MONITOR, POOL, SCORE, TAG
from schemas.config import NAME, Pipeline
from schemas.errors import ConfigurationError, UsageError
from schemas.parameters import Parameters
from schemas.schedule import Schedule

FILE = Path("prefect.yaml")
ENTRYPOINT = "flows.retrain.retrain"  # a module's: it is found where leptonflow is installed, whatever the folder
ENTRYPOINTS = {FLOW: ENTRYPOINT, SCORE: "flows.score.score", MONITOR: "flows.monitor.monitor"}
SCORES = "Score the source of the YAML's section `score` by the champion, to files on the store."
MONITORS = "Look for drift in what the champion is served; a drift asks for a retraining."
OURS = (ENTRYPOINT, "flows.retrain:retrain", "flows/retrain.py:retrain")
M = TypeVar("M", bound=BaseModel)
DESCRIPTION = "Ingest pending batches, train, evaluate, and promote if the gate passes."


class WorkPool(BaseModel):
    """The keys of `work_pool` that are read here; Prefect has more."""

    name: str = Field(default=POOL, min_length=1)
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class Entry(BaseModel):
    """The keys of a deployment in prefect.yaml that are read here; Prefect has more."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    parameters: dict[str, Any]
    tags: list[str] = []
    description: str | None = None
    work_pool: WorkPool = WorkPool()


@dataclass(frozen=True)
class Deployable:
    """One pipeline, as it is to be registered."""

    config: Pipeline
    parameters: dict[str, Any]
    work_pool: WorkPool = field(default_factory=WorkPool)
    tags: tuple[str, ...] = ()
    description: str = DESCRIPTION
    flow: str = FLOW

    @property
    def key(self) -> tuple[str, str]:
        """(flow, name): what no second deployment has."""
        return self.flow, self.name

    @property
    def schedule(self) -> Schedule | None:
        """The YAML's."""
        if self.flow == SCORE:
            return self.config.score.schedule if self.config.score is not None else None
        if self.flow == MONITOR:
            return self.config.serving.monitor.schedule if self.config.serving.monitor is not None else None
        return self.config.schedule

    @property
    def name(self) -> str:
        """The deployment's name: the pipeline's."""
        return self.config.name


def read(folder: Path, wrong: dict[Path, UsageError] | None = None) -> list[Deployable]:
    """What `folder` wants, in the order of prefect.yaml, then of the other pipelines' names.

    A YAML that is wrong is put into `wrong`, and left out; where that is None, it is raised. Raises ConfigurationError
    for what is wrong in prefect.yaml, and for two pipelines of one name.
    """
    found: list[Deployable] = []
    listed = set()
    for key, entry in _entries(folder):
        path = _listed_path(folder, key, entry)
        listed.add(path.resolve())
        config = _load(folder, path, wrong)
        if config is not None:
            found.append(_listed(config, key, entry))
    for name, path in pipeline_files.available(folder / PIPELINES).items():
        config = None if path.resolve() in listed else _load(folder, path, wrong)
        if config is not None:
            reference = name if name == config.name else str(path.relative_to(folder))
            found.append(Deployable(config, {"pipeline": reference}, tags=_tags(config)))
    names = [each.name for each in found]
    for name in sorted({name for name in names if names.count(name) > 1}):
        references = [str(each.parameters["pipeline"]) for each in found if each.name == name]
        raise ConfigurationError(
            f"two deployments name the pipeline {name}",
            expected="one deployment for each pipeline, and another name in every YAML",
            received=", ".join(references),
            hint=f"Remove one from {FILE}, or give its YAML another name",
        )
    return [
        *found,
        *(_beside(each, SCORE, SCORES) for each in found if each.config.score is not None),
        *(_beside(each, MONITOR, MONITORS) for each in found if each.config.serving.monitor is not None),
    ]


def _beside(of: Deployable, flow: str, description: str) -> Deployable:
    """The deployment of another flow, of a pipeline whose YAML asks for it: it runs where the retraining does."""
    parameters = {name: value for name, value in of.parameters.items() if name in ("pipeline", "store")}
    return replace(of, parameters=parameters, description=description, flow=flow)


def available(folder: Path) -> list[str]:
    """The names of the YAMLs under the folder's pipelines/."""
    return list(pipeline_files.available(folder / PIPELINES))


def _entries(folder: Path) -> Iterator[tuple[str, Entry]]:
    """The deployments in prefect.yaml of this flow, each with its key's path; those of other flows are not ours."""
    path = folder / FILE
    if not path.exists():
        return
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(
            f"{FILE} cannot be read as YAML", expected="a YAML mapping", received=" ".join(str(error).split())
        ) from None
    deployments = document.get("deployments") if isinstance(document, dict) else None
    if not isinstance(deployments, list):
        raise ConfigurationError(
            f"{FILE} lists no deployments",
            expected="a mapping with the list `deployments`",
            received=type(document).__name__ if not isinstance(document, dict) else type(deployments).__name__,
            hint=f"Fix it, or remove {FILE}: every YAML under {PIPELINES}/ is registered without it",
        )
    for number, raw in enumerate(deployments):
        key = f"{FILE}: deployments.{number}"
        if isinstance(raw, dict) and str(raw.get("entrypoint") or ENTRYPOINT).removeprefix("./") not in OURS:
            continue
        yield key, _checked(Entry, raw, key)


def _checked(model: type[M], raw: object, key: str) -> M:
    """`raw` as that model. The error does not show the value, which may hold a secret."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([key, *map(str, first["loc"])])
        raise ConfigurationError(f"{where} is not valid", expected=first["msg"], hint="Fix it") from None


def _listed_path(folder: Path, key: str, entry: Entry) -> Path:
    reference = entry.parameters.get("pipeline")
    path = yaml_of(folder, reference)
    if not path.is_file():
        names = available(folder)
        raise ConfigurationError(
            f"{key}.parameters.pipeline names a pipeline that does not exist",
            expected=f"{'one of ' + ', '.join(names) if names else 'a name under pipelines/'}, or a path to a .yaml",
            received="nothing" if reference is None else str(reference),
            hint="Fix it, or remove the deployment",
        )
    return path


def _listed(config: Pipeline, key: str, entry: Entry) -> Deployable:
    if entry.name not in (None, config.name):
        raise ConfigurationError(
            f"{key}.name is not the name of its pipeline",
            expected=config.name,
            received=str(entry.name),
            hint="A pipeline has one deployment, of its own name",
        )
    parameters = _checked(Parameters, entry.parameters, f"{key}.parameters").given()
    return Deployable(config, parameters, entry.work_pool, _tags(config, entry.tags), entry.description or DESCRIPTION)


def yaml_of(folder: Path, reference: object) -> Path:
    """Where the YAML of a pipeline's name or path lies, whether or not there is one."""
    text = str(reference)
    if Path(text).suffix in (".yaml", ".yml"):
        return folder / text
    path = folder / PIPELINES / (f"{text}.yaml" if NAME.fullmatch(text) else "")
    return path if path.exists() else pipeline_files.available(folder / PIPELINES).get(text, path)


def _load(folder: Path, path: Path, wrong: dict[Path, UsageError] | None) -> Pipeline | None:
    """The pipeline; its errors name the path as a person in the folder would."""
    here = folder == Path.cwd() and path.is_relative_to(folder)
    try:
        return load_config(str(path.relative_to(folder) if here else path))
    except UsageError as error:
        if wrong is None:
            raise
        wrong[path.resolve()] = error
        return None


def _tags(config: Pipeline, others: list[str] | None = None) -> tuple[str, ...]:
    return tuple(dict.fromkeys([TAG, config.name, *(others or [])]))
