"""A second `retrain` with nothing new: how long it takes, and that nothing heavy is imported and no server started."""

from __future__ import annotations

import json
import re

from benchmarks import images, measure
from benchmarks.measure import LEPTONFLOW, median, run, table

HEAVY = ("tensorflow", "keras", "great_expectations", "prefect", "duckdb", "pandas", "sklearn", "pyarrow")


def main() -> None:
    given = measure.options(__doc__)
    count = 300 if given.quick else 10_000
    with measure.workspace() as folder:
        images.write(folder / "images", count)
        (folder / "bench.yaml").write_text(images.pipeline("bench", folds=2, epochs=1))
        store = {"LEPTONFLOW_STORE": (folder / "store").as_uri()}
        ingest = [LEPTONFLOW, "ingest", "bench.yaml", "images", "--json"]
        retrain = [LEPTONFLOW, "retrain", "bench.yaml", "--json"]
        run(ingest, folder, **store)
        first = run(retrain, folder, **store)
        again = [run(retrain, folder, **store) for _ in range(max(3, given.times))]
        traced = run(retrain, folder, PYTHONPROFILEIMPORTTIME="1", **store)

        image = folder / "images" / images.CLASSES[0] / "one-more.jpg"
        images.write(folder / "more", 1, seed=1)
        next((folder / "more").rglob("*.jpg")).rename(image)
        grown = json.loads(run(ingest, folder, **store).output)
        after = json.loads(run(retrain, folder, **store).output)

    imported = set(re.findall(r"\|\s+(\w+)\s*$", traced.errors, re.MULTILINE))
    verdicts = [json.loads(each.output)["verdict"] for each in again]
    table(
        f"{count:,} images, medians of {len(again)}",
        ["", "seconds", "bound"],
        [
            ("the first retrain", first.seconds, "-"),
            ("the second, nothing new", median(again, lambda m: m.seconds), "at most 2"),
        ],
    )
    print(f"verdicts: {', '.join(verdicts)}")
    print(f"of {', '.join(HEAVY)} it imported: {', '.join(n for n in HEAVY if n in imported) or 'none'}")
    print(f"processes at once: {max(each.processes for each in again)} (1: no server was started)")
    print(
        f"one more file in the folder: accepted {grown['accepted']}, known {grown['known']}; "
        f"retrain then: {after['verdict']}"
    )


if __name__ == "__main__":
    main()
