"""What a run of the process work pool may change of its job: a closed list of environment variables, nothing else.

Prefect's own template lets whoever asks for a run give its command, its folder and any variable. `closed` makes the
template of the pool that has only the list; `kept` is for a worker, which Prefect tells of some runs that its server
has not held against the template. Pure functions of documents. What does not belong here: Prefect's API
(server_objects).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.errors import ConfigurationError

Document = dict[str, Any]

NAMES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    "PREFECT_LOGGING_LEVEL",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
# What an interpreter, a loader, a shell or a tool reads before any code of ours, or where Prefect looks for its own.
_DECIDES = re.compile(
    r"(LD|DYLD|PYTHON|BASH|ZSH|PERL|RUBY|NODE|JAVA|JDK|GIT|UV|PIP|CONDA|VIRTUAL|MALLOC|GLIBC|GCONV|SSL|CURL|REQUESTS|XLA"
    r"|NVIDIA|CUDA_INJECTION|PREFECT_(API|HOME|PROFILE|LOGGING_SETTINGS|RUNNER|WORKER|SERVER|TEST|_))\w*"
    r"|_\w*|ENV|IFS|PATH|CDPATH|HOME|SHELL|SHELLOPTS|PS4|PROMPT_COMMAND|TMPDIR|TEMP|TMP|EDITOR|PAGER|BROWSER"
    r"|MPLCONFIGDIR|MPLBACKEND|KERAS_HOME|KERAS_BACKEND|\w+_PROXY|\w*(PRELOAD|LIBRARY_PATH)\w*",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(variables: Mapping[str, Any], where: str) -> None:
    """Raises ConfigurationError where a deployment's job variables are none that the pool takes."""
    others = sorted(set(variables) - {"env"})
    if others:
        raise ConfigurationError(
            f"{where} sets a job variable that runs of this work pool may not set",
            expected="env, with the variables of the run, and working_dir",
            received=", ".join(others),
            hint="Remove it, or use a work pool of your own, which may allow more",
        )
    wrong = sorted(name for name in variables.get("env") or {} if not _NAME.fullmatch(name) or _DECIDES.fullmatch(name))
    if wrong:
        raise ConfigurationError(
            f"{where} sets a variable that decides what code a run executes",
            expected="variables that no interpreter, loader or shell reads",
            received=", ".join(wrong),
            hint="Set it where the worker is started",
        )


def is_closed(template: Document) -> bool:
    """Whether a run may change nothing but what the template lists."""
    return template.get("variables", {}).get("additionalProperties") is False


def closed(template: Document, names: Iterable[str]) -> Document:
    """The template for the variables `names`, and those that it lists already; else with its own defaults."""
    from prefect.utilities.templating import apply_values

    properties = template.get("variables", {}).get("properties", {})
    environment = properties.get("env", {})
    defaults = {name: each["default"] for name, each in properties.items() if each.get("default") is not None}
    fixed = {key: value for key, value in template.get("job_configuration", {}).items() if key != "env"}
    listed = {*NAMES, *names, *environment.get("properties", {}), *defaults.get("env", {})}
    variables: Document = {
        "type": "object",
        "description": "A retraining in its folder, as leptonflow registers it. A run may set these variables alone.",
        "properties": {
            "env": {
                "title": "Environment Variables",
                "description": "Environment variables of the run.",
                "type": "object",
                "properties": {name: {"type": "string"} for name in sorted(listed)},
                "additionalProperties": False,
                "default": defaults.get("env", {}),
            }
        },
        "additionalProperties": False,
    }
    return {
        "job_configuration": {**apply_values(fixed, defaults, remove_notset=True), "env": "{{ env }}"},
        "variables": variables,
    }


def kept(template: Document, values: Mapping[str, Any]) -> Document:
    """Those of a run's job variables that a closed template lists; all where it is open. A dotted key is none."""
    if not is_closed(template):
        return dict(values)
    listed = template["variables"]["properties"]["env"]["properties"]
    given = values.get("env")
    environment = given if isinstance(given, dict) else {}
    return {"env": {name: value for name, value in environment.items() if name in listed}}
