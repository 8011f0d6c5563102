"""What a person waits for: `leptonflow --help`, and `status` on a directory store."""

from __future__ import annotations

import sys

from benchmarks import images, measure
from benchmarks.measure import LEPTONFLOW, table, timed


def main() -> None:
    given = measure.options(__doc__)
    times = max(3, given.times)
    with measure.workspace() as folder:
        images.write(folder / "images", 60 if given.quick else 1000)
        (folder / "bench.yaml").write_text(images.pipeline("bench"))
        store = {"LEPTONFLOW_STORE": (folder / "store").as_uri()}
        measure.run([LEPTONFLOW, "ingest", "bench.yaml", "images"], folder, **store)
        rows = [
            ("python alone", timed([sys.executable, "-c", "pass"], folder, times), "-"),
            ("leptonflow --help", timed([LEPTONFLOW, "--help"], folder, times, **store), "at most 0.4"),
            ("leptonflow status", timed([LEPTONFLOW, "status", "bench.yaml"], folder, times, **store), "at most 1"),
        ]
    table(f"Medians of {times}", ["", "seconds", "bound"], rows)


if __name__ == "__main__":
    main()
