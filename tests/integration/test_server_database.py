"""A new database of a Prefect server: a copy of the user's template, which Prefect's own migrations built."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows import server, server_database
from leptonflow.core import progress
from tests.prefect_servers import plain_environment


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a working directory for the database."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(data: bytes) -> Path:
    path = server_database.template()
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_a_new_database_is_a_copy_that_only_this_user_reads(cache: Path) -> None:
    made = cache.parent / "made.db"
    with closing(sqlite3.connect(made)) as connection:
        connection.executescript("create table a(b); insert into a values(1);")
    keep(gzip.compress(made.read_bytes()))
    Path("memo_store.toml").touch()
    Path("prefect.new").write_text("a start that was killed")
    server_database.create()
    assert [path.name for path in Path().iterdir()] == ["prefect.db"]
    assert rows(server_database.DATABASE, "select b from a") == [(1,)]
    assert server_database.DATABASE.stat().st_mode & 0o777 == 0o600
    server_database.DATABASE.write_bytes(b"a person's runs")
    server_database.create()
    assert server_database.DATABASE.read_bytes() == b"a person's runs"


def test_a_damaged_template_is_not_used(cache: Path) -> None:
    whole = gzip.compress(bytes(range(256)) * 100, compresslevel=1)
    path = keep(whole)
    assert server_database.empty() == bytes(range(256)) * 100
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", whole[:5], whole[:-1], whole[:middle], flipped, b"x" * len(whole)):
        path.write_bytes(damaged)
        assert server_database.empty() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_template_is_not_used(cache: Path) -> None:
    os.chown(keep(gzip.compress(b"x")), 12345, 12345)
    assert server_database.empty() is None


def test_the_cache_folder_is_the_platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, platform, expected in (
        (str(tmp_path / "x"), "linux", "x"),
        (str(tmp_path / "x"), "darwin", "x"),
        ("relative", "linux", ".cache"),
        ("", "darwin", "Library/Caches"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        monkeypatch.setattr(sys, "platform", platform)
        assert server_database.template().parent == tmp_path / expected / "leptonflow"


def test_the_template_is_at_prefects_newest_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the tests use, which the set-up or an earlier server made."""
    from alembic.script import ScriptDirectory
    from prefect.server.database import alembic_commands, orm_models

    set_up(Path(os.environ["XDG_CACHE_HOME"]))
    monkeypatch.chdir(tmp_path)
    server_database.create()
    migrations = Path(orm_models.__file__).parent / "_migrations"
    config = alembic_commands.alembic_config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("version_locations", str(migrations / "versions" / "sqlite"))
    head = ScriptDirectory.from_config(config).get_current_head()
    assert rows(server_database.DATABASE, "select version_num from alembic_version") == [(head,)]


def set_up(*caches: Path) -> None:
    """As the set-up does, into each of these cache folders at once."""
    command = [sys.executable, "-m", "flows.server_database"]
    running = [
        subprocess.Popen(command, env={**plain_environment(), "XDG_CACHE_HOME": str(cache)}, stderr=subprocess.PIPE)
        for cache in caches
    ]
    for each in running:
        _, told = each.communicate(timeout=180)
        assert each.returncode == 0, told


@pytest.mark.slow
def test_two_may_make_the_template_at_once_and_a_damaged_one_is_replaced(cache: Path) -> None:
    path = keep(b"damaged")
    set_up(cache, cache)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    server_database.create()
    assert rows(server_database.DATABASE, "pragma integrity_check") == [("ok",)]
    assert rows(server_database.DATABASE, "select count(*) from flow_run") == [(0,)]


@pytest.mark.slow
def test_without_a_cache_prefect_builds_the_database_in_place_which_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    cache.write_text("a file, where a folder cannot be made")
    monkeypatch.setenv("HOME", str(cache.parent))
    told: list[str] = []
    for expected in (1, 1):  # the second start finds the database
        with progress.listen(to_note=told.append), server.api(Path.cwd()) as api:
            api.wait(120)
        assert len(told) == expected and "builds its database" in told[0]
    assert rows(server_database.DATABASE, "select count(*) from alembic_version") == [(1,)]
