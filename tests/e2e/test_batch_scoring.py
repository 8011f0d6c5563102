"""`predict --output` from outside: flat memory, and a kill that costs nothing but the chunk that was under way."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import onnx_export
from leptonflow.storage.address import open_store
from leptonflow.workloads.image_classification import cnn
from schemas.image_classification import ImageModel
from tests import small_packages
from tests.e2e.helpers import Result, checked, start
from tests.verdicts import promoted_by_hand

SHAPE = (12, 12, 1)
PEAK = "import atexit; from leptonflow.core import machine; atexit.register(lambda: open({!r}, 'w').write(str(machine.peak_memory())))"  # noqa: E501


@pytest.mark.slow
def test_twenty_thousand_images_take_the_memory_of_two_hundred_and_a_kill_keeps_what_was_finished(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, *SHAPE[:2]), np.uint8)
    keras().utils.set_random_seed(1)
    model = cnn.build(ImageModel(filters=(4,), dense=4), SHAPE, 2)
    exported = onnx_export.export(model, pixels[:1, :, :, None])
    sha256 = small_packages.put_model(open_store(str(store)), "v1", model, SHAPE, [("model.onnx", exported)])
    promoted_by_hand(open_store(str(store)), small_packages.PIPELINE, "v1", sha256)
    gate = [{"rule": "at_least", "metric": "accuracy", "value": 0.1}]
    document = {
        "name": small_packages.PIPELINE, "workload": "image_classification", "input": list(SHAPE), "gate": gate,
    }  # fmt: skip
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(document))
    for folder, count in (("few", 200), ("many", 20_000)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.fromarray(pixels[number]).save(tmp_path / folder / f"{number:05d}.png")

    def score(folder: str, output: str) -> tuple[int, float]:
        """(peak of memory, seconds)."""
        given = ("predict", "digits.yaml", folder, "--output", output, "--store", store, "--json")
        began = time.monotonic()
        process = start(*given, cwd=tmp_path, prelude=PEAK.format(str(tmp_path / "peak")))
        out, err = process.communicate()
        result = checked([str(each) for each in given], Result(process.returncode, out, err))
        assert result.status == 0, result.told()
        return int((tmp_path / "peak").read_text()), time.monotonic() - began

    few, _ = score("few", "few.parquet")
    many, seconds = score("many", "many.parquet")
    print(f"200 images: {few / 1e6:.0f} MB; 20,000: {many / 1e6:.0f} MB, {seconds:.0f} s")
    assert many <= 1.1 * few, (few, many)
    assert pq.ParquetFile(tmp_path / "many.parquet").metadata.num_rows == 20_000

    process = start("predict", "digits.yaml", "many", "--output", "cut.parquet", "--store", store, cwd=tmp_path)
    parts, deadline = tmp_path / "cut.parquet.parts", time.monotonic() + 200
    while len(list(parts.glob("*.parquet"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    finished = len(list(parts.glob("*.parquet")))
    assert 5 <= finished < 20 and not (tmp_path / "cut.parquet").exists()
    score("many", "cut.parquet")
    assert not parts.exists()
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()
