"""Which names of a store are taken, and which would be a new and empty store by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.settings import board_url, checked_uri, store_uri

UNFINISHED = (
    "~", "~/store", "~user/store", "$HOME/store", "${HOME}/store", "/data/$USER", "%USERPROFILE%/store", "%DATA%",
    "'/data/store'", '"/data/store"', "/data/store ", " /data", "/data/store\r", "", " ",
    "file:/data", "file:data", "file:~/data", "s3:/bucket/x", "s3:bucket", "gs:bucket", "C:\\data",
    "file:///~/data", "file:///$HOME/data", "file:///%HOME%/data", "s3://bucket/$PREFIX", "s3://bucket/~/x",
)  # fmt: skip


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_name_that_a_shell_was_meant_to_complete_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as refused:
        store_uri(name)
    assert "Write the whole path" in refused.value.line()
    if name:  # an empty variable is one that is not set
        monkeypatch.setenv("LEPTONFLOW_STORE", name)
        with pytest.raises(UsageError):
            store_uri()


@pytest.mark.parametrize("name", ["gs://bucket/x", "http://host/x", "$SCHEME://x", "file://~/x", "file://$HOME/x"])
def test_other_schemes_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        store_uri(name)


def test_what_is_whole_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_uri("store") == checked_uri("./store") == (tmp_path / "store").as_uri()
    assert checked_uri("./~") == (tmp_path / "~").as_uri()
    assert checked_uri("/data/a~b, 50% of $5/é") == Path("/data/a~b, 50% of $5/é").as_uri()
    for uri in ("file:///data/%24HOME", "file:///data/%C3%A9%20x", "s3://bucket/a/b", "memory://x"):
        assert checked_uri(uri) == uri
    assert checked_uri("S3://bucket/x/") == "s3://bucket/x"  # a scheme's case means nothing
    assert checked_uri("FILE:///data") == "file:///data"


def test_the_default_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        monkeypatch.setenv("LEPTONFLOW_STORE", value) if value is not None else monkeypatch.delenv(
            "LEPTONFLOW_STORE", False
        )
        assert store_uri() == (tmp_path / ".leptonflow").as_uri()


def test_a_boards_address_is_that_of_a_web_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTONFLOW_BOARD_URL", "")
    assert board_url() is None
    monkeypatch.setenv("LEPTONFLOW_BOARD_URL", "https://board.example.com/x/")
    assert board_url() == "https://board.example.com/x"
    for wrong in ("board.example.com", "file:///x", "javascript:alert(1)", "https://kim:secret@board", "https://"):
        monkeypatch.setenv("LEPTONFLOW_BOARD_URL", wrong)
        with pytest.raises(UsageError) as refused:
            board_url()
        assert "secret" not in refused.value.line()
