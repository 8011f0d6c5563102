"""The `leptonflow` command: one function a subcommand. Thin: parse, call, print.

Names, `--json` keys and exit statuses are those of docs/commands.md. What does not belong here: any decision.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from cli import (
    approvals,
    batches,
    board,
    canary,
    dataset,
    gate,
    monitoring,
    output,
    pipeline_state,
    predictions,
    query,
    registry,
    report,
    serve,
    tuning,
)
from cli.common import JSON, PIPELINE, STORE, Answer, answer
from cli.process_exit import leave
from schemas.errors import LeptonflowError, UsageError
from schemas.settings import quiet, store_uri

app = typer.Typer(
    name="leptonflow",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
COMPLETES = "_LEPTONFLOW_COMPLETE"  # set by a shell that completes a command line

INTERRUPTED = 130
VERDICT_STATUS = {"promoted": 0, "unchanged": 0, "rejected-data": 3, "refused": 4, "waiting": 5}


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"leptonflow {metadata.version('leptonflow')}")
        raise typer.Exit()


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="print the run's log on standard error")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="print a traceback if there is an error")] = False,
) -> None:
    """Continuous training: validate new labelled data, retrain, and promote a model only if it passes its gate."""


app.command()(dataset.init)
app.command()(dataset.ingest)
app.command()(batches.discard)
app.command()(dataset.retract)


@app.command()
def retrain(
    pipeline: PIPELINE,
    force: Annotated[bool, typer.Option("--force", help="a new attempt although nothing is new")] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Ingest batches, train, evaluate, promote if the gate passes."""
    from cli import show
    from leptonflow.core import person, pipeline_files, progress
    from leptonflow.runs import batch_warnings, unchanged
    from leptonflow.storage import run_lock
    from leptonflow.storage.address import open_store

    uri = store_uri(store)
    config = pipeline_files.load_config(pipeline)
    opened = open_store(uri)
    said: list[str] = []
    with show.progress(), progress.listen(None, said.append), run_lock.one_at_a_time(opened, config.name):
        document = None if force else unchanged.document(opened, config)
        if document is None:
            from flows import local_run

            document = local_run.retrain(config, pipeline, uri, force)
    if warnings := document.get("warnings"):
        told = batch_warnings.told_to(opened, config.name, person.person())
        for warning in warnings:
            if warning not in told and not any(warning in line for line in said):  # of its only batch
                show.warn(warning)
    if document["verdict"] == "unchanged":
        line = unchanged.why_not_champion(config.name, document)
        if line:
            show.warn(line)
    answer(Answer(document, lambda: show.retrained(opened, config, pipeline, document)), as_json)
    return VERDICT_STATUS[document["verdict"]]


app.command()(pipeline_state.status)
app.command()(pipeline_state.runs)
app.command()(registry.models)
app.command()(pipeline_state.history)
app.command()(pipeline_state.verify)


@app.command()
def promote(
    pipeline: PIPELINE,
    version: Annotated[str, typer.Option("--version", metavar="V")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")],
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Make a version the champion although the gate did not. Recorded, with the reason."""
    from leptonflow.registry import manual_decisions

    return _override(pipeline, store, as_json, manual_decisions.promote, version, reason)


@app.command()
def rollback(
    pipeline: PIPELINE,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="recorded")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="V", help="default: the champion before the current one")
    ] = None,
    away_from: Annotated[
        str | None, typer.Option("--from", metavar="V", help="only where V is the champion: safe to repeat")
    ] = None,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Make an earlier champion the champion again."""
    from functools import partial

    from leptonflow.registry import manual_decisions

    return _override(pipeline, store, as_json, partial(manual_decisions.rollback, away_from=away_from), to, reason)


def _override(
    pipeline: str,
    store: str | None,
    as_json: bool,
    decide: Callable[..., dict[str, Any]],
    version: str | None,
    reason: str,
) -> int:
    from cli import show
    from leptonflow.core import person, pipeline_files
    from leptonflow.evaluation import load_check
    from leptonflow.storage.address import open_store

    config = pipeline_files.load_config(pipeline)
    opened = open_store(store_uri(store))

    def ensure(candidate: str, manifest_sha256: str) -> Any:
        return load_check.validate(opened, config, candidate, manifest_sha256)

    document = decide(opened, config.name, version, reason, person.person(), ensure)
    return answer(Answer(document, lambda: show.overridden(document)), as_json)


app.command()(approvals.approve)
app.command()(approvals.reject)
app.command()(canary.canary)
app.command()(tuning.tune)
app.command()(gate.gate)


app.command()(predictions.predict)
app.command()(serve.serve)
app.command()(monitoring.label)
app.command()(monitoring.labels)
app.command()(monitoring.monitor)
app.command()(board.board)
app.command()(query.query)


app.command()(report.report)
app.command()(registry.explain)
app.command()(registry.reproduce)


@app.command()
def watch(
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE]...", help="names or paths; else all under pipelines/")
    ] = None,
    poll: Annotated[
        float | None, typer.Option("--poll", min=0.1, metavar="SECONDS", help="between two listings of the store")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="raise events for pending batches, and end")] = False,
    webhook_port: Annotated[
        int | None, typer.Option("--webhook-port", min=1, max=65535, help="where MinIO's notifications are received")
    ] = None,
    store: STORE = None,
) -> int:
    """Raise the event leptonflow.batch.arrived for each closed batch."""
    from cli import watch_loop

    return watch_loop.watch(pipelines or [], store, poll, once, webhook_port)


@app.command()
def deploy(as_json: JSON = False) -> int:
    """Register every pipeline and its schedule on the Prefect server. Also what prefect.yaml adds."""
    from cli import show
    from flows import deployments, server

    document = deployments.deploy(Path.cwd(), server.found(say=show.warn))
    return answer(Answer(document, lambda: show.deployed(document)), as_json)


@app.command()
def up(
    s3: Annotated[
        bool, typer.Option("--s3", help="also start an S3 server: minio if installed, else SeaweedFS")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="run in the background; `leptonflow down` stops it")] = False,
    login: Annotated[bool, typer.Option("--show-login", help="print user:password of Prefect's API, and end")] = False,
    store: STORE = None,
) -> int:
    """Start Prefect's server and UI, board, worker and watcher. They run until Ctrl-C."""
    from cli import stack

    return stack.show_login() if login else stack.up(store, s3, detach)


@app.command()
def down() -> int:
    """Stop what `up` started in this folder."""
    from cli import stack

    return stack.down()


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="default: all of them")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing new lines")] = False,
) -> int:
    """What the services of `up` wrote."""
    from cli import stack

    return stack.logs(service, follow)


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="create the bucket and switch its versioning on")] = False,
    store: STORE = None,
    as_json: JSON = False,
) -> int:
    """Check whether this machine and store are ready. One line per check."""
    from cli import health_checks, show

    checks = health_checks.checks(store_uri(store), fix)
    status = 0 if all(c["ok"] for c in checks) else 1
    return answer(Answer({"checks": checks}, lambda: show.checks(checks), status), as_json)


def main(arguments: list[str]) -> int:
    """Run one command; every failure is one clear line on standard error, and a document with --json."""
    if "--verbose" in arguments:
        os.environ["LEPTONFLOW_VERBOSE"] = "1"
    quiet()
    # They mean the same for every command, and stand wherever a person puts them.
    given = [each for each in arguments if each not in ("--verbose", "--debug")]
    debug = "--debug" in arguments
    if _wants_a_document(given):
        return output.of_one_document(lambda: _run(given, True, debug))
    return _run(given, False, debug)


def _wants_a_document(arguments: list[str]) -> bool:
    return "--json" in arguments and not {"--help", "-h"} & set(arguments)


@cache
def _command() -> Any:
    """All subcommands, made once in a process: it takes as long as many a command."""
    return get_command(app)


def _run(arguments: list[str], as_json: bool, debug: bool) -> int:
    try:
        status = _command()(arguments, prog_name="leptonflow", standalone_mode=False)
    except LeptonflowError as error:
        return _failed(error, as_json, debug)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return 2
        command = getattr(getattr(error, "ctx", None), "command_path", "leptonflow")
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _failed(UsageError(message, hint=f"`{command} --help` shows what it takes"), as_json, debug)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer's answer to one
            return _unread()
        if COMPLETES in os.environ or {"--show-completion", "--install-completion"} & set(arguments):
            return error.code if isinstance(error.code, int) else 0
        ended = LeptonflowError("code that the command runs ended the process", received=f"exit({error.code!r})")
        return _failed(ended, as_json, debug)
    except Exception as error:  # noqa: BLE001 - the last net: one line for a person, the traceback with --debug
        what = f"{type(error).__name__}: {error}".strip()
        hint = "Run it again with --debug for the traceback"
        return _failed(LeptonflowError(f"unexpected: {what}", hint=hint), as_json, debug)
    if status == INTERRUPTED:  # Typer turns the interrupt of a running command into this
        stopped = LeptonflowError("stopped", hint="Run the same command again to continue")
        if as_json:
            output.tell(stopped.document())
        print("leptonflow: stopped; run the same command again to continue", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _unread() -> int:
    """Nobody reads on: nothing more to say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _failed(error: LeptonflowError, as_json: bool, debug: bool) -> int:
    from cli import show

    if debug:
        traceback.print_exc()
    if as_json:
        output.tell(error.document())
    show.warn(error.line())
    return error.exit_status


def run() -> None:
    """The console script."""
    if _wants_a_document(sys.argv[1:]):
        output.keep_apart()
    leave(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
