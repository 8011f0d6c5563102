"""The subcommand `gate --simulate`: the operating curve, as a table with bars. The engine computes its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import JSON, PIPELINE, STORE, Answer, answer
from schemas.errors import UsageError
from schemas.settings import store_uri
from schemas.text import noun, printable

BAR = 40  # characters of a chance of 1


def gate(
    pipeline: PIPELINE,
    simulate: Annotated[bool, typer.Option("--simulate", help="the chance of promotion by true difference")] = False,
    discordance: Annotated[
        float | None, typer.Option("--discordance", metavar="D", help="default: as the newest run shows it")
    ] = None,
    holdout: Annotated[
        int | None, typer.Option("--holdout", metavar="N", help="default: the current holdout's size")
    ] = None,
    power: Annotated[
        float, typer.Option("--power", metavar="P", help="wanted chance that the better candidate is promoted")
    ] = 0.8,
    better: Annotated[
        float | None, typer.Option("--better", metavar="D", help="true difference of that candidate; default: 0.02")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="also write the curve as an SVG")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """The gate's error rates, and the holdout that it needs. Simulated; nothing is trained."""
    if not simulate:
        raise UsageError("`gate` needs an option", expected="--simulate", received="no option")
    document, shown = _simulated(pipeline, store_uri(store), discordance, holdout, power, better, picture)
    return answer(Answer(document, shown), as_json)


def _simulated(
    pipeline: str,
    uri: str,
    discordance: float | None,
    holdout: int | None,
    power: float,
    better: float | None,
    picture: Path | None,
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The document of `gate --simulate`, and the function that shows it. Writes the picture if one is requested."""
    from leptonflow.core import pipeline_files
    from leptonflow.gate import yearly_simulation
    from leptonflow.runs import operating_curve
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    curve, seen = operating_curve.curve(
        open_store(uri), config, discordance=discordance, holdout=holdout, power=power, better=better
    )
    after = yearly_simulation.simulate(
        curve.n, curve.discordance, curve.margin, curve.confidence, accuracy=curve.accuracy
    )
    document = operating_curve.document(curve, seen) | {"year": {**vars(after), "sentence": after.sentence}}
    if picture is not None:
        from leptonflow.reports import plot_files, plots

        try:
            picture.write_text(plot_files.standalone(plots.operating_curve(curve)), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                "the picture cannot be written", expected="a path to a new file", received=str(error)
            ) from None
    return document, lambda: _shown(config.name, document, picture)


def _shown(pipeline: str, document: dict[str, Any], picture: Path | None) -> None:

    bound, confidence = document["bound"], document["confidence"]
    needed = f"at most {-bound:g} worse" if bound < 0 else f"better by more than {bound:g}" if bound else "better"
    together = [rule for rule in document["rules"] if rule["simulated"]]
    print(f"{pipeline}: against_champion, accuracy, {needed} at confidence {confidence:g}; {document['method']}")
    if len(together) > 1:
        print(f"simulated: all of {', '.join(map(_name, together))}; computed: against_champion alone")
    for rule in document["rules"]:
        if not rule["simulated"]:
            print(f"not simulated: {_name(rule)}: {rule['why']}")
    examples = f"{document['n']:,} holdout {noun(document['n'], 'example')}"
    print(f"{examples}, discordance {document['discordance']:.4g}", end=" ")
    print(f"({printable(document['discordance_source'])})")
    if document["champion_accuracy"] is not None:
        print(f"the champion's accuracy on the holdout: {document['champion_accuracy']:.4g}")
    if document["assumption"]:
        print(f"an assumption: {printable(document['assumption'])}")
    print()
    print(f"{'true':>9}  {'promoted':>8}  {'computed':>8}")
    print(f"{'difference':>10} {'simulated':>9}  {'exactly':>7}  0%{'100%':>{BAR - 2}}")
    for point in document["curve"]:
        bar = "\u2588" * round(BAR * point["promoted"]) or "\u258f"
        note = _note(point["difference"], document) if len(together) == 1 else ""
        figures = f"{point['promoted']:>8.1%}  {point['computed']:>8.1%}"
        print(f"{point['difference']:>+10.4f}  {figures}  {bar}{note}")
    print()
    if len(together) > 1:
        _by_rule(document)
    print(document["sentence"])
    print(document["year"]["sentence"])
    if picture is not None:
        print(f"picture: {picture}")


def _name(rule: dict[str, Any]) -> str:
    return f"{rule['rule']}{' ' + rule['metric'] if rule['metric'] else ''}"


def _by_rule(document: dict[str, Any]) -> None:
    """The share that passes each simulated rule, at the differences of most interest and at the curve's ends."""
    points = document["curve"]
    ends = {points[0]["difference"], points[-1]["difference"]}
    wanted = {-0.02, 0.0, 0.02, round(document["bound"], 10), round(document["better"], 10), *ends}
    shown = [point for point in points if point["difference"] in wanted]
    print(f"{'passes':<30}" + "".join(f"{point['difference']:>+9.4f}" for point in shown))
    for number, rule in enumerate(document["rules"]):
        if rule["simulated"]:
            print(f"{_name(rule):<30}" + "".join(f"{point['by_rule'][number]:>9.1%}" for point in shown))
    print()


def _note(difference: float, document: dict[str, Any]) -> str:
    if document["bound"] and difference == round(document["bound"], 10):
        return f"  <- the bound: about {1 - document['confidence']:.0%}"
    return "  <- no difference" if difference == 0 else ""
