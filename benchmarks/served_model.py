"""The small CNN of pipelines/digits.yaml from a process's start to its first prediction, as a server loads it."""

from __future__ import annotations

import statistics
import sys

from benchmarks import measure
from benchmarks.measure import table

# A package with the model of the YAML, which needs no training to be loaded.
MAKE = """
import numpy as np
from leptonflow.core.pipeline_files import load_config
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import onnx_export
from leptonflow.storage.address import open_store
from leptonflow.workloads.image_classification import cnn
from tests import small_packages
keras()
config = load_config("pipelines/digits.yaml")
model = cnn.build(config.model, config.input, 2)
exported = onnx_export.export(model, np.zeros((1, *config.input), np.uint8))
for version, files in (("onnx", [("model.onnx", exported)]), ("keras", [])):
    small_packages.put_model(open_store(sys.argv[1]), version, model, config.input, files)
"""
PREDICT = """
import io, sys
import numpy
from PIL import Image
from leptonflow.registry import served_models
from leptonflow.storage.address import open_store
from leptonflow.workloads import catalog
served = served_models.load(open_store(sys.argv[1]), "digits", sys.argv[2])
workload, body = catalog.load(served.manifest.workload), io.BytesIO()
Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (28, 28), numpy.uint8)).save(body, "png")
example = workload.request(body.getvalue(), served.manifest.input)
rows, _ = served.predict_encoded(served.encode(example[None]))
print(served.runtime, workload.target.answer(rows[0], served.classes))
"""


def main() -> None:
    given = measure.options(__doc__)
    times = max(3, given.times)
    with measure.workspace() as folder:
        store = (folder / "store").as_uri()
        measure.run([sys.executable, "-c", f"import sys\n{MAKE}", store], measure.ROOT)
        rows = []
        for version, bound in (("onnx", "at most 3 s, 300 MB"), ("keras", "-")):
            runs = [measure.run([sys.executable, "-c", PREDICT, store, version], measure.ROOT) for _ in range(times)]
            runtime = runs[0].output.split()[0]
            seconds = statistics.median(each.seconds for each in runs)
            rows.append((runtime, f"{seconds:.2f}", f"{max(each.largest for each in runs):.0f}", bound))
    table(f"Start to first prediction and the process's end, {times} times", ["", "seconds", "MiB", "bound"], rows)


if __name__ == "__main__":
    main()
