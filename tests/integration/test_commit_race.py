"""Processes that commit at once: one line of records without a gap or a fork, on a disk and on real S3 servers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from leptonflow.storage.address import open_store
from leptonflow.storage.commit_log import read

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "promotions/digits/log"
WRITERS, EACH = 8, 3

WRITER = """
    import sys
    from leptonflow.storage.commit_log import LostRace, commit, read
    from leptonflow.storage.address import open_store

    uri, prefix, name, each = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    store = open_store(uri)
    print("ready", flush=True)
    sys.stdin.readline()
    lost = 0
    log = read(store, prefix)
    for n in range(each):
        while True:
            try:
                log = commit(store, log, id=f"{name}-{n}", kind="promotion", body={"n": n}, who=name, why="a race")
                break
            except LostRace as race:
                log = race.log
                lost += 1
    print(lost)
"""


def test_racing_processes_leave_one_line(store_uri: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), store_uri, PREFIX]
    writers = [
        subprocess.Popen(
            [*command, f"writer-{n}", str(EACH)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(WRITERS)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        lost = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert sum(lost) > 0  # they did race

    store = open_store(store_uri)
    log = read(store, PREFIX)  # verifies numbers, chain and store
    assert log.number == WRITERS * EACH
    assert sorted(entry.id for entry in log.entries) == sorted(
        f"writer-{w}-{n}" for w in range(WRITERS) for n in range(EACH)
    )
    assert [key for key, _ in store.list(PREFIX)] == [f"{PREFIX}/{n:08d}.json" for n in range(1, log.number + 1)]
    assert {entry.store for entry in log.entries} == {json.loads(store.get("store.json"))["id"]}
