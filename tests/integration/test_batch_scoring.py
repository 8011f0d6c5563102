"""Objects under an S3 prefix, and tables there, scored to a file on this machine."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from leptonflow.batch_scoring import scoring_job
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.storage.address import open_store
from leptonflow.workloads.image_classification import cnn
from schemas.image_classification import ImageModel
from tests import fit_examples, small_packages
from tests.e2e.helpers import picture
from tests.servers import Server
from tests.verdicts import promoted_by_hand

SHAPE = (12, 12, 1)
CONFIG = fit_examples.pipeline(name=small_packages.PIPELINE, input=list(SHAPE))


@pytest.mark.slow
def test_a_prefix_and_a_table_beside_it(s3_server: Server, tmp_path: Path) -> None:
    keras().utils.set_random_seed(1)
    base = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    store, images = open_store(f"{base}/store"), open_store(f"{base}/images")
    sha256 = small_packages.put_model(store, "v1", cnn.build(ImageModel(filters=(4,), dense=4), SHAPE, 2), SHAPE)
    promoted_by_hand(store, small_packages.PIPELINE, "v1", sha256)
    for number in range(5):
        data = io.BytesIO()
        picture(number, (12, 12)).save(data, "png")
        images.create(f"in/{number}.png", data.getvalue())
    images.create("in/broken.png", b"no picture")
    images.create("list.csv", b"path\nin/3.png\nin/gone.png\n../store/store.json\n")
    output = tmp_path / "out.parquet"
    document = scoring_job.to_file(store, CONFIG, [f"{base}/images/in", f"{base}/images/list.csv"], output, processes=2)
    rows = pq.read_table(output).to_pylist()
    names = [f"{base}/images/in/{name}.png" for name in (*range(5), "broken")]
    assert [row["source"] for row in rows] == [*names, *(f"{base}/images/list.csv[{n}]" for n in range(3))]
    assert (document["rows"], document["failed"]) == (9, 3)
    assert rows[6]["id"] == rows[3]["id"] and rows[6]["probability[0]"] == rows[3]["probability[0]"]
    assert rows[5]["error"].startswith("unreadable-image") and rows[8]["error"].startswith("path-escape")
    assert "was not found" in rows[7]["error"]
