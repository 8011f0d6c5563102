"""docs/notebook.ipynb: its cells run as they are, on a small trained store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.commands.places import Place

NOTEBOOK = json.loads((Path(__file__).parents[3] / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
HOLDS = """
assert runs["verdict"].tolist() == ["promoted"] and set(folds["folds"]) == {2}
assert abs(holdout["correct"].mean() - champion.metrics["accuracy"]) < 1e-9
assert (example.source, example.label) == (holdout["source"].iloc[0], holdout["label"].iloc[0])
assert predicted["label"].tolist() == [holdout["predicted"].iloc[0]]
"""


@pytest.mark.slow
def test_the_notebook_runs_in_docs_beside_the_store(first: Place, tmp_path: Path) -> None:
    """Its code cells in one namespace, as a kernel has them; what they leave agrees with each other."""
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), "outputs are not committed"
    (tmp_path / "docs").mkdir()
    (tmp_path / ".leptonflow").symlink_to(first.store)
    code = "\n".join(["".join(cell["source"]) for cell in cells] + [HOLDS])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "docs", capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
