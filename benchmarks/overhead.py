"""What the pipeline costs over a plain Keras script that does the same decoding, folds, fits and scores.

10,000 JPEG files of 32 x 32 x 3 in a folder per class, three folds and a final fit, two epochs, batches of 32.
A is `leptonflow ingest` plus `leptonflow retrain` in an empty folder on an empty store: imports, the Prefect server
with its new database and every write included. B is benchmarks/plain_keras.py. They alternate, and medians are printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import LEPTONFLOW, ROOT, Measured, median, run, table, timed

IMPORTS = {
    "TensorFlow and Keras": "import keras",
    "Great Expectations": "import great_expectations",
    "Prefect": "import prefect",
    "scikit-learn metrics": "import sklearn.metrics",
    "pyarrow": "import pyarrow.parquet",
    "pandas": "import pandas",
    "DuckDB": "import duckdb",
    "matplotlib": "import matplotlib.figure",
    "Python alone": "pass",
}


def ours(folder: Path, source: Path, epochs: int) -> tuple[Measured, Measured, dict[str, Any]]:
    """`ingest` and `retrain` on an empty store; and the retrain document."""
    folder.mkdir()
    (folder / "bench.yaml").write_text(images.pipeline("bench", epochs=epochs))
    store = {"LEPTONFLOW_STORE": (folder / "store").as_uri()}
    first = run([LEPTONFLOW, "ingest", "bench.yaml", str(source)], folder, **store)
    second = run([LEPTONFLOW, "retrain", "bench.yaml", "--json"], folder, **store)
    return first, second, json.loads(second.output)


def main() -> None:
    given = measure.options(__doc__)
    count, epochs = (600, 1) if given.quick else (10_000, 2)
    a: list[Measured] = []
    parts: list[tuple[float, float]] = []
    b: list[Measured] = []
    with measure.workspace() as folder:
        images.write(folder / "images", count)
        document: dict[str, Any] = {}
        plain: dict[str, object] = {}
        for number in range(given.times):
            first, second, document = ours(folder / f"run-{number}", folder / "images", epochs)
            parts.append((first.seconds, second.seconds))
            a.append(
                Measured(
                    first.seconds + second.seconds,
                    max(first.largest, second.largest),
                    max(first.tree, second.tree),
                    "",
                    "",
                    max(first.processes, second.processes),
                )
            )
            script = [sys.executable, str(ROOT / "benchmarks/plain_keras.py"), "images", "m.keras", str(epochs)]
            b.append(run(script, folder, TF_CPP_MIN_LOG_LEVEL="3"))
            plain = json.loads(b[-1].output)
            pair = f"leptonflow {a[-1].seconds:.1f} s, script {b[-1].seconds:.1f} s"
            print(f"  {number + 1} of {given.times}: {pair}", flush=True)

        rows = [
            (name, median(a, of), median(b, of), median(a, of) / median(b, of), "at most 1.2")
            for name, of in (
                ("whole commands, seconds", lambda m: m.seconds),
                ("largest process, MiB", lambda m: m.largest),
                ("all processes (PSS), MiB", lambda m: m.tree),
            )
        ]
        table(f"{count:,} images, medians of {given.times}", ["", "leptonflow", "script", "ratio", "bound"], rows)
        table(
            "Each pair, in turn",
            ["", "leptonflow", "of it ingest", "of it retrain", "script", "ratio"],
            [
                (n + 1, x.seconds, parts[n][0], parts[n][1], y.seconds, x.seconds / y.seconds)
                for n, (x, y) in enumerate(zip(a, b, strict=True))
            ],
        )
        stages = list(document["seconds"].items())
        table("The last retrain by stage (start-ups overlap stages)", ["stage", "seconds"], stages)
        table(
            f"Start-up costs, medians of {given.times}",
            ["", "seconds"],
            [(name, timed([sys.executable, "-c", code], folder, given.times)) for name, code in IMPORTS.items()],
        )
        scores = {"folds": document["cv"]["accuracy"]["folds"], "holdout": document["holdout"]["accuracy"]}
        print(f"\nAccuracy, to see that both learned: leptonflow {json.dumps(scores)}, script {json.dumps(plain)}")


if __name__ == "__main__":
    main()
