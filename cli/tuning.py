"""The subcommand `tune`: trials of other values, then the best as a YAML to review. The engine does all of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer
from schemas.settings import store_uri
from schemas.text import counted, printable


def tune(
    pipeline: PIPELINE,
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="of the whole study; those done count")],
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="after which no trial starts")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Try other values in cross-validation. Which, says the YAML's section tune; the holdout is never read."""
    from cli import show
    from leptonflow.core import pipeline_files
    from leptonflow.storage.address import open_store
    from leptonflow.tuning import search, tuned_yaml

    path = pipeline_files.find(pipeline)
    config = pipeline_files.load_config(pipeline)
    source = path.read_text(encoding="utf-8-sig")
    opened = open_store(store_uri(store))
    with show.progress():
        document, best = search.tune(opened, config, trials, timeout)
    value, default = document["best"]["value"], document["default"]
    as_it_is = "" if default is None else f", {default:.4f} as it was"
    comment = f"{document['study']}: {document['metric']} {value:.4f} over the folds{as_it_is}."
    text = tuned_yaml.text(source, config, best, comment)
    target = tuned_yaml.path(path)
    document["difference"] = tuned_yaml.difference(source, text)
    lay_there = target.exists() and target.read_text(encoding="utf-8") == text
    document["yaml"] = None if best.number == 1 else str(target) if lay_there else _written(target, text, as_json)
    return answer(Answer(document, lambda: _show(document, pipeline, path, target, lay_there)), as_json)


def _written(target: Path, text: str, as_json: bool) -> str | None:
    """The path of the tuned YAML; None where another one lies there that a person does not want to lose."""
    if target.exists():
        asks = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
        if not (asks and typer.confirm(f"{target} exists and is another one. Overwrite it?")):
            return None
    target.write_text(text, encoding="utf-8")
    return str(target)


def _show(document: dict[str, Any], pipeline: str, path: Path, target: Path, lay_there: bool) -> None:
    """The trials, the best of them, and what to do with its YAML. lay_there: it was written before."""
    from cli import show
    from leptonflow.reports.study_page import text

    best, metric, tried = document["best"], document["metric"], tuple(document["best"]["parameters"])
    shown = [
        {**each, "trial": each["number"], "std": each["std"] and round(each["std"], 4),
         "seconds": f"{each['seconds']:.1f}", **{key: text(value) for key, value in each["parameters"].items()}}
        for each in document["trials"]
    ]  # fmt: skip
    show.rows(shown[-20:], ("trial", "state", "value", "std", "seconds", *tried), long=tried)
    number = counted(len(shown), "trial")
    as_it_is = "" if document["default"] is None else f"; with the YAML as it is {document['default']:.4f}"
    which = "trial 1, the YAML as it is)" if best["number"] == 1 else f"trial {best['number']}){as_it_is}"
    print(f"\nThe best {metric} of {number} is {best['value']:.4f} ({which}.")
    print(f"page: {printable(document['report'])}")
    if best["number"] == 1:
        print("No trial was better than the YAML as it is: nothing is written.")
        return
    print("".join(f"\n  {printable(line)}" for line in document["difference"]))
    if document["yaml"] is None:
        print(f"\n{target} exists and was kept: move it away, and run the same command again to write this one.")
        return
    wrote = f"{target} is written already" if lay_there else f"wrote {target}"
    print(f"\n{wrote}: look at it, then replace {path} by it and retrain:")
    given = [shlex.quote(str(each)) for each in (target, path, pipeline)]
    print(f"  {printable(f'mv {given[0]} {given[1]}')}\n  {printable(show.typed(f'retrain {given[2]}'))}")
    print("Its folds are trained already. The gate decides on the holdout, which no trial has seen.")
