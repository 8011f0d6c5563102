"""The one list of the pipelines that a store holds something of."""

from __future__ import annotations

from pathlib import Path

from leptonflow.notebook.opened_store import OpenedStore
from leptonflow.runs import stored_pipelines
from leptonflow.storage.address import open_store


def test_whatever_is_left_of_a_pipeline_names_it_and_a_folder_of_another_name_does_not(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    for key in ("landing/cats/b/_READY", "runs/no-log/1/manifest.json", "models/dogs/1/manifest.json", "tables/x/1"):
        store.create(key, b"")
    (tmp_path / "landing" / "My Data" / "b").mkdir(parents=True)
    assert stored_pipelines.names(store) == OpenedStore(store).pipelines() == ["cats", "dogs", "no-log"]
