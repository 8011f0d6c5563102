"""What the documents say is true: their commands run, their links lead somewhere, and nothing is left out.

The commands run in a folder like a newcomer's after `make retrain`, except that its model learns less.
"""

from __future__ import annotations

import ast
import csv
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from leptonflow.data.dataset import admission
from tests.e2e.helpers import call, working_folder
from tests.texts import CLASSES, sample

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted(p for p in (ROOT / "pipelines").glob("*.yaml") if not p.name.endswith(".contract.yaml"))
RULE = r"[a-z]+(-[a-z]+)+8?"  # of the quarantine; not-utf8 ends with a digit
SOME_ID = "0123456789ab"  # how the pages write a version or a run id

# Commands that other checks run, and which.
ELSEWHERE = {
    "make retrain": "tests/e2e",
    "make test": "you are looking at it",
    "make test-all": "the same with the slow ones",
    "make up": "tests/e2e/stack",
    "leptonflow up": "tests/e2e/stack",
    "leptonflow up --s3": "tests/e2e/stack",
    "leptonflow up --detach": "tests/integration/test_stack.py, with logs and down",
    "leptonflow logs worker --follow": "the same",
    "leptonflow up --show-login": "tests/integration/test_login.py",
    "leptonflow deploy": "tests/integration/test_deployments.py",
    "leptonflow watch digits": "tests/integration/test_watcher.py",
    f"leptonflow reproduce {SOME_ID} --folds": "below, where its keys are looked up",
    "leptonflow tune digits --trials 20": "below, with two",
    "make bench": "python -m benchmarks.overhead --quick and its siblings",
}
SERVICES = {"board", "up", "down", "logs", "watch", "serve"}  # they run on, and have no one document to print
NEEDS_S3 = re.compile(r"AWS_|s3://")  # tests/integration: the same commands on real servers


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(page: Path) -> list[str]:
    """The lines after `$ ` in a page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@functools.cache
def subcommands() -> frozenset[str]:
    import typer.main

    from cli.main import app

    return frozenset(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def shell(command: str, folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """One line of a page, as a newcomer would type it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LEPTONFLOW_", "PREFECT_", "AWS_"))}
    return subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/leptonflow", "leptonflow")],
        cwd=folder,
        env={**clean, "PATH": f"{BIN}:{clean['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def newcomer(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> tuple[Path, dict[str, str]]:
    """A folder after `make retrain`, with pictures and texts to bring; and the ids of its run.

    Its commands run in this process, which has imported what they need or will; those of the pages do not.
    """
    from pipelines.digits_images import write_digits

    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    digits = folder / "pipelines" / "digits.yaml"
    config = yaml.safe_load(digits.read_text())
    config["training"] = {"epochs": 1, "folds": 2}
    config["gate"] = [
        {"rule": "at_most", "metric": "log_loss", "value": 100.0},
        {"rule": "against_champion", "metric": "accuracy", "margin": 0.9},
    ]
    digits.write_text(yaml.safe_dump(config))
    write_digits(folder / "build" / "digits", limit=120)
    bring_pictures(folder)
    bring_texts(folder / "reviews.csv")
    with working_folder(folder, prefect_folder):
        for line in ("ingest digits build/digits --batch sklearn-digits", "retrain digits --json"):
            done = call(*line.split())
            assert done.status == 0, f"{line}\n{done.told()}"
    return folder, {"run_id": done.document["run_id"], "version": done.document["version"]}


def bring_pictures(folder: Path) -> None:
    """The sources that the pages bring: photos/ (a folder per class), arrays/ (.npy), table/ (CSV)."""
    import numpy as np
    from PIL import Image

    source = np.random.default_rng(0)
    rows = ["path,label"]
    for colour, kind in (((230, 220, 60), "daisy"), ((200, 30, 60), "rose"), ((90, 60, 200), "tulip")):
        for number in range(60):
            picture = np.clip(source.normal(colour, 8, (8, 8, 3)), 0, 255).astype(np.uint8)
            for target in (folder / "photos" / kind, folder / "table" / "more" / kind):
                target.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(target / f"{number}.png")
                picture = picture[::-1]  # the table brings other pictures than the folder
            rows.append(f"more/{kind}/{number}.png,{kind}")
    (folder / "table" / "flowers.csv").write_text("\n".join(rows) + "\n")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "train_data.npy", source.integers(0, 256, (20, 28, 28), dtype=np.uint8))
    np.save(folder / "arrays" / "train_labels.npy", np.arange(20) % 10)


def bring_texts(path: Path) -> None:
    """The table of texts that the pages bring."""
    texts, labels = sample(60)
    rows = [(CLASSES[label], *text.split(" ", 1)) for text, label in zip(texts, labels, strict=True)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "title", "text"), *rows])


ran: set[str] = set()  # a command that two pages show is run once


@pytest.mark.timeout(600)  # two trainings, and some twenty commands
@pytest.mark.parametrize(
    "page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])], ids=map(name_of, PAGES)
)
def test_the_commands_of_a_page_run(page: Path, newcomer: tuple[Path, dict[str, str]]) -> None:
    """Every command of every page ends well, in the order in which a reader meets it."""
    folder, ids = newcomer
    for command in commands(page):
        line = command.replace(".venv/bin/leptonflow", "leptonflow")
        if line in ELSEWHERE or NEEDS_S3.search(line) or line in ran:
            continue
        ran.add(line)
        known = ids["run_id" if re.search(" (report|reproduce) ", line) else "version"]
        done = shell(line.replace(SOME_ID, known), folder)
        assert done.returncode == 0, f"{page.name}: {command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


ASKED = (
    "status digits", "runs digits", "models digits", f"models digits --show {SOME_ID}", "history digits",
    f"models digits --diff {SOME_ID} {SOME_ID}", "explain digits",
    "gate digits --simulate --discordance 0.05 --holdout 2000",
    pytest.param(f"reproduce {SOME_ID} --folds", marks=pytest.mark.slow),
    pytest.param("tune digits --trials 2", marks=pytest.mark.slow),
)  # fmt: skip


@pytest.mark.parametrize("line", ASKED)
def test_every_key_of_an_answer_is_on_its_page(
    line: str, newcomer: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/commands.md names, between backticks, each key of the document that `--json` prints."""
    folder, ids = newcomer
    known = line.replace(SOME_ID, ids["run_id" if line.startswith("reproduce") else "version"])
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LEPTONFLOW_STORE", raising=False)
    done = call(*known.split(), "--json")
    assert done.status == 0, done.told()
    document = done.document
    records = document if isinstance(document, list) else [document]
    inner = [row for record in records for name in ("would_change", "folds", "gate", "curve", "differences", "trials")
             for row in record.get(name) or ()]  # fmt: skip
    text = re.sub("^```.*?^```", "", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", text))))
    keys = {key for record in (*records, *inner) for key in record}
    assert keys and sorted(keys - named) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Links and pictures within the repository exist."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [t for t in targets if "://" not in t and not (page.parent / t).exists()]


def test_every_folder_of_the_readmes_tree_is_there() -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    above, named = "", []
    for indent, name in re.findall(r"^( *)(\w+/)", block, re.MULTILINE):
        above = "" if not indent else above
        named.append(above + name)
        above = name if not indent else above
    missing = [name for name in named if not (ROOT / name).is_dir()]
    assert len(named) > 10 and not missing


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", *CONFIGS], ids=name_of)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.findall(r"<!--.*?-->|\bTODO\b|\bCOST\b|\bSCORE\b", page.read_text(encoding="utf-8"))


def test_every_command_is_documented_and_exists() -> None:
    """docs/commands.md has a row for each subcommand, and for no other."""
    table = re.findall(r"^\| `([a-z]+)[ `]", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(subcommands())


def test_the_pages_name_no_command_that_does_not_exist() -> None:
    named = {
        (name_of(page), word)
        for page in [*PAGES, ROOT / "CHANGELOG.md"]
        for word in re.findall(r"(?:`|\$ |bin/)leptonflow ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    }
    assert not {(page, word) for page, word in named if word not in subcommands()}


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cli.main import main

    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage:" in shown
    assert ("--json" in shown) == (name not in SERVICES)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_shipped_pipeline_parses_and_says_what_it_costs(path: Path) -> None:
    from leptonflow.core.pipeline_files import load_config

    assert load_config(str(path)).name == path.stem
    opening = path.read_text().split("\nname:")[0]
    for word in ("What it trains:", "What it costs:", "What to expect:", f"retrain {path.stem}"):
        assert word in opening or (word == "retrain digits" and "make retrain" in opening), word


def test_every_table_is_documented() -> None:
    from schemas.tables import COLUMNS

    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert not [name for name in COLUMNS if f"`{name}`" not in page]


def test_every_rule_of_the_quarantine_is_documented() -> None:
    """A person finds a rule in the table `quarantine`, and then on the page."""
    from leptonflow.data.validation import acceptance

    rules = {acceptance.DUPLICATE, acceptance.RETRACTED, acceptance.UNKNOWN_LABEL, acceptance.CONFLICT}
    for room in ("data/ingest", "data/validation", "workloads"):
        for path in (ROOT / "leptonflow" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # A rule is written beside its reason: in a tuple, or as the first argument of a refusal.
                first = node.elts[:1] if isinstance(node, ast.Tuple) and len(node.elts) == 2 else ()
                if isinstance(node, ast.Call) and re.search("Refus|Examined", ast.unparse(node.func)):
                    first = node.args[:1]
                rules |= {n.value for n in first if isinstance(n, ast.Constant) and re.fullmatch(RULE, str(n.value))}
    page = (ROOT / "docs" / "bring-your-own-data.md").read_text(encoding="utf-8")
    assert len(rules) > 25 and sorted(rule for rule in rules if f"`{rule}`" not in page) == []


CHECK_ENTRYPOINT = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
flow = load_flow_from_entrypoint(sys.argv[1])
print(json.dumps(sorted(flow.parameters.properties)))
"""


def test_prefect_yaml_deploys_every_pipeline() -> None:
    """One retrain deployment for each shipped pipeline; its entrypoint loads and takes its parameters."""
    from leptonflow.core.pipeline_files import load_config

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for entrypoint in {each["entrypoint"] for each in deployments}:
        done = subprocess.run(
            [sys.executable, "-c", CHECK_ENTRYPOINT, entrypoint], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        takes = set(json.loads(done.stdout))
        given = [set(each.get("parameters", {})) for each in deployments if each["entrypoint"] == entrypoint]
        assert not [names for names in given if not names <= takes]
    retrained = {load_config(str(each["parameters"]["pipeline"])).name for each in deployments}
    assert {path.stem for path in CONFIGS} <= retrained


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"make ([a-z-]+)", done.stdout)) == set(phony[1].split())


def test_the_benchmarks_are_shown() -> None:
    """docs/performance.md has a row for each benchmark that can be run, and they are importable."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    helpers = {"__init__", "measure", "images"}
    scripts = [p for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in helpers]
    assert not [p.name for p in scripts if p.name not in page]
    for path in scripts:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
