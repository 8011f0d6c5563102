"""The floors of docs/architecture.md, read from the source itself: who may import whom, and what costs start-up time.

import-linter holds the same floors over whole import chains (`make lint`); this file also sees imports by name.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leptonflow.core import store_keys

ROOT = Path(__file__).parent.parent
FLOORS = {"schemas": 0, "leptonflow": 1, "tasks": 2, "serving": 2, "flows": 3, "cli": 4}
HEAVY = {
    "tensorflow", "keras", "great_expectations", "prefect", "duckdb", "pandas", "sklearn", "matplotlib", "scipy",
    "optuna",
}  # fmt: skip
PICKLES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
WORKLOAD_NAMES = ("image_classification", "text_classification")

# What may be imported where: the one place for each outside thing.
ONLY_IN = {
    "great_expectations": ("leptonflow.data.validation.contracts",),
    "duckdb": ("leptonflow.tables.queries",),
    "optuna": ("leptonflow.tuning.search_space",),
    "prefect": ("flows", "tasks", "deployments"),
    "keras": ("leptonflow.keras_runtime.keras_models",),
}
ONLY_IN["tensorflow"] = (  # a GPU's memory; the loop over steps; the format of TensorBoard's files
    *ONLY_IN["keras"], "leptonflow.keras_runtime.devices", "leptonflow.keras_runtime.tensorflow_steps",
    "leptonflow.training.event_files",
)  # fmt: skip


def sources() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(path: Path) -> frozenset[tuple[str, int]]:
    """(dotted name, line) of all that a file imports, in functions too, and by import_module("name")."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            found.add((node.module or "", node.lineno))
            found |= {(f"{node.module}.{alias.name}", node.lineno) for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in ("import_module", "importlib.import_module", "__import__"):
                found.add((str(node.args[0].value), node.lineno))
    return frozenset(found)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


MODULES = sources()


def test_the_tree_is_what_these_tests_read() -> None:
    """A floor that moved or was renamed would make every test below pass without reading it."""
    assert FLOORS.keys() <= {name.split(".")[0] for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    """A module imports its own floor and the floors below; tasks and serving, on one floor, not each other."""
    own = name.split(".")[0]
    upward = [
        f"{MODULES[name]}:{line} imports {target}"
        for target, line in imports(MODULES[name])
        if (floor := target.split(".")[0]) in FLOORS and floor != own and FLOORS[floor] >= FLOORS[own]
    ]
    assert not upward


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_place(library: str) -> None:
    """Each outside thing is imported where docs/architecture.md says, and nowhere else."""
    strays = [
        f"{path}:{line}"
        for name, path in MODULES.items()
        if not any(within(name, home) for home in ONLY_IN[library])
        for target, line in imports(path)
        if within(target, library)
    ]
    assert not strays


def test_no_module_of_the_engine_imports_itself_in_a_circle() -> None:
    """Imports in functions and under TYPE_CHECKING count: deferring one never opens a circle."""
    engine = {name: path for name, path in MODULES.items() if within(name, "leptonflow")}
    needs = {name: {target for target, _ in imports(path)} & engine.keys() - {name} for name, path in engine.items()}
    while free := [name for name, targets in needs.items() if not targets & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, "a circle runs through these"


def test_no_pickle() -> None:
    """What is read from a store is never executed: no pickle by any name, and arrays without objects."""
    strays = [
        f"{path}:{line} imports {target}"
        for path in MODULES.values()
        for target, line in imports(path)
        if target.split(".")[0] in PICKLES
    ]
    allowing = [str(path) for path in MODULES.values() if re.search(r"allow_pickle\s*=\s*True", path.read_text())]
    assert not strays + allowing


def test_nothing_names_a_workload() -> None:
    """Adding a workload is one package, its sections in schemas/ and one name: no other code may know one by name."""
    strays = [
        f"{path}:{number}"
        for name, path in MODULES.items()
        if not within(name, "leptonflow.workloads")
        and name not in ("schemas.workloads", *(f"schemas.{workload}" for workload in WORKLOAD_NAMES))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if any(workload in line for workload in WORKLOAD_NAMES)
    ]
    assert not strays


# Words of one workload, and where else in the engine some of them stand for another reason.
MEDIA = re.compile("(?i)image|picture|pixel|photo|height|confusion")
NAMES = "names that people give to columns, files and folders"
LISTING = "a key of a landed table's listing"
MATRIX = "the matrix that an evaluation records, where there are classes"
ELSEWHERE = {
    "leptonflow.data.ingest.array_files": ("image pixel", "arrays as a source are images by their layout"),
    "leptonflow.data.ingest.label_columns": ("image", NAMES),
    "leptonflow.data.ingest.source_layout": ("image photo picture pixel", NAMES),
    "leptonflow.data.ingest.source_workload": ("image", NAMES),
    "leptonflow.data.ingest.table_rows": ("image", LISTING),
    "leptonflow.data.validation.landed_tables": ("image", LISTING),
    "leptonflow.evaluation.holdout_evaluation": ("confusion", MATRIX),
    "leptonflow.keras_runtime.keras_models": ("image", "Keras's own setting `image_data_format`"),
    "leptonflow.reports.plot_files": ("height image", "SVG's own words"),
    "leptonflow.reports.plots": ("height", "SVG's own words"),
    "leptonflow.tables.views": ("confusion", "the name of a view"),
}


def test_a_workloads_words_stay_in_its_room() -> None:
    """The engine speaks of examples: what they are, and how a prediction can be wrong, is the workload's to know."""
    found = {
        name: " ".join(sorted({word.lower() for word in MEDIA.findall(path.read_text(encoding="utf-8"))}))
        for name, path in MODULES.items()
        if within(name, "leptonflow") and not within(name, "leptonflow.workloads")
    }
    assert {name: words for name, words in found.items() if words} == {name: w for name, (w, _) in ELSEWHERE.items()}


def test_the_engine_never_deletes_or_overwrites_on_a_store() -> None:
    """The store's verbs are create, get, list, size, path: one alone takes something away, and only under scratch/."""
    tree = ast.parse(MODULES["leptonflow.storage.store"].read_text(encoding="utf-8"))
    verbs = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "create" in verbs
    taking = [verb for verb in verbs if re.match(r"(delete|remove|overwrite|put|move|rename)(_|$)", verb)]
    assert taking == ["remove_scratch"]


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each string but docstrings; what an f-string fills in counts as `?`."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    pieces = {id(each) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for each in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "?" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | pieces:
            yield node.lineno, node.value


def keys_by_hand(code: str) -> list[int]:
    """The lines that spell a key or a folder of the store. A text with a space is a sentence and no key."""
    tree = ast.parse(code)
    roots = [value for name, value in vars(store_keys).items() if name.isupper() and re.fullmatch("[a-z]+", str(value))]
    key = re.compile(rf"\??({'|'.join(roots)})/\S*")
    found = [line for line, text in texts(tree) if key.fullmatch(text)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("keys", "folders", "list"):
            found += [each.lineno for each in node.args if isinstance(each, ast.Constant) and each.value in roots]
    return found


def test_one_module_builds_every_key_of_a_store() -> None:
    """Another module that spells one would go on with the old key when the layout changes."""
    assert keys_by_hand('a = f"runs/{name}"\nb = "runs/ is empty"\nc = store.keys("runs")') == [1, 3]
    strays = [
        f"{path}:{line}"
        for name, path in MODULES.items()
        if name != "leptonflow.core.store_keys"
        for line in keys_by_hand(path.read_text(encoding="utf-8"))
    ]
    assert not strays


# What may change in a module while a process runs, with the reason. All else is a value that is passed.
CONTEXT = "a ContextVar: it goes with the work, into its threads, and is not of the process"
STATE = {
    "leptonflow.core.deadlines._current": CONTEXT,
    "leptonflow.core.progress._work": CONTEXT,
    "leptonflow.data.dataset.admission._AT_HAND": CONTEXT,
    "leptonflow.storage.s3._patience": CONTEXT,
    "leptonflow.keras_runtime.keras_models._IMPORT": "a process imports Keras once",
    "leptonflow.training.workspace.MODEL_LOCK": "Keras keeps seeds and graphs for the whole process",
    "leptonflow.registry.packages._models": "the last two loaded models by the sha256 of their bytes",
    "leptonflow.storage.address._memories": "a memory:// store is the process's memory",
    "leptonflow.storage.address._memories_lock": "guards it",
    "leptonflow.storage.commit_log._verified": "records that were verified, which never change",
    "leptonflow.storage.commit_log._verified_lock": "guards it",
    "leptonflow.storage.object_store._honouring": "servers that were seen to honour If-None-Match",
    "leptonflow.storage.run_lock._HELD": "the kernel's locks are held by the process",
    "leptonflow.workloads.media.image.damage._STDERR": "file descriptor 2 is the process's",
    "leptonflow.workloads.user_model._imported": "tells what sys.modules holds of the user's code",
    "serving.live_models._OWN_CODE": "what is imported of a version's own code is the process's",
    "flows.stack.ports._reserved": "file descriptors that are open until the process ends",
    "flows.stack.tether._thread": "ends the process with its parent",
    "cli.output._told": "a process writes one document to its standard output",
    "cli.output._apart": "file descriptor 1 is the process's",
}
KINDS = {"ContextVar", "Lock", "RLock", "Event", "Condition", "Semaphore", "Queue", "local"}
CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}


def changing(code: str) -> set[str]:
    """The module-level names that functions rebind or change in place, and those made to be changed."""
    tree = ast.parse(code)
    top, found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            top |= names
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).split(".")[-1] in KINDS:
                found |= names
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for each in (inner for function in functions for inner in ast.walk(function)):
        changed: ast.expr | None = None
        if isinstance(each, ast.Global):
            found |= set(each.names)
        elif isinstance(each, ast.Subscript | ast.Attribute) and not isinstance(each.ctx, ast.Load):
            changed = each.value
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr in CHANGES:
            changed = each.func.value
        if isinstance(changed, ast.Name) and changed.id in top:
            found.add(changed.id)
    return found


def test_no_module_keeps_state_but_what_is_listed() -> None:
    """State of a module is of one process: a fold that runs in another, or on another machine, would not see it."""
    code = "A, B, C, E = {}, [], 1, {}\nD = threading.Lock()\ndef f():\n    global C\n    A['x'] = 1\n    B.append(E)\n"
    assert changing(code) == {"A", "B", "C", "D"}
    there = {f"{name}.{each}" for name, path in MODULES.items() for each in changing(path.read_text(encoding="utf-8"))}
    assert there == STATE.keys()


LONGEST = 60


@pytest.mark.parametrize("floor", FLOORS)
def test_functions_are_short(floor: str) -> None:
    """A function that is longer does several things: take it apart."""
    strays = [
        f"{path}:{node.lineno}: {node.name} has {lines} lines"
        for name, path in MODULES.items()
        if within(name, floor)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    ]
    assert not strays


def test_modules_are_short() -> None:
    strays = [str(path) for path in MODULES.values() if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not strays


def test_every_page_that_the_code_names_is_there() -> None:
    named = {
        page for path in MODULES.values() for page in re.findall(r"docs/[\w/.-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named and not [page for page in named if not (ROOT / page).is_file()]


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def defined(name: str) -> bool:
    """Whether a dotted name is a module, or a function, class or method that stands in one."""
    module = name
    while module and module not in MODULES:
        module = module.rpartition(".")[0]
    if not module:
        return False
    body = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
    for part in filter(None, name[len(module) + 1 :].split(".")):
        found = [node for node in body if getattr(node, "name", None) == part]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def test_what_the_page_on_architecture_names_is_there() -> None:
    named = re.findall(rf"`((?:{'|'.join(FLOORS)})\.[\w.]+)`", ARCHITECTURE)
    assert len(named) > 20
    assert not [name for name in named if not defined(name)]
    assert not defined("leptonflow.core.store_keys.no_such_key")


def test_the_page_on_architecture_shows_every_room() -> None:
    rooms = {name.split(".")[1] for name in MODULES if name.startswith("leptonflow.") and name.count(".") > 1}
    assert set(re.findall(r"^\| `(\w+)/` \|", ARCHITECTURE, re.MULTILINE)) == rooms


def of_project(word: str) -> bool:
    return any(f".{name}.".endswith(f".{word}.") or f".{word}." in f".{name}." for name in MODULES)


def test_docstrings_name_what_is_there() -> None:
    """Where a module says what belongs elsewhere, the place in brackets is a room or a module of the project."""
    strays = []
    for path in MODULES.values():
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for found in re.finditer(r"\(([a-z_.]+(?:,\s[a-z_.]+)*)\)", told.partition("not belong")[2]):
            strays += [f"{path}: {word}" for word in re.split(r",\s", found[1]) if not of_project(word)]
    assert not strays


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    report = "import sys; print('\\n'.join({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stderr.split())


def test_the_command_line_imports_nothing_heavy() -> None:
    """`leptonflow --help` must answer at once: what is heavy is imported inside the function that needs it."""
    assert not loaded_by("import cli.main") & (HEAVY | {"numpy", "pyarrow", "PIL"})


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, os; sys.argv = ['leptonflow', '--help']\n"
        "sys.stdout = open(os.devnull, 'w')\n"
        "from cli.main import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code, end.code"
    )
    assert not loaded_by(code) & (HEAVY | {"numpy", "pyarrow", "PIL"})


def test_planning_imports_nothing_heavy() -> None:
    """`unchanged` is decided by planning alone, in a process that holds none of the four."""
    assert not loaded_by("import leptonflow.runs.planning") & HEAVY


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "leptonflow") or within(name, "schemas")])
def test_heavy_imports_are_lazy(name: str) -> None:
    """No module of the engine imports TensorFlow, Great Expectations, DuckDB or Prefect at its top."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    at_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in at_top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in at_top if isinstance(node, ast.ImportFrom)}
    assert not {n for n in names if n.split(".")[0] in {"tensorflow", "keras", "great_expectations", "duckdb"}}
