"""A person's decision between the kill and the next run: it stands, and the run weighs anew what it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leptonflow.storage.address import open_store
from tests.e2e.crash.scenes import RETRAIN, Place, Scene, copy, nothing_new, sql
from tests.e2e.killing import AFTER, BEFORE, Kill


def history(uri: str) -> list[tuple[str, str, str | None]]:
    """(kind, version, previous) of each promotion record, oldest first."""
    found = sql(open_store(uri), "select kind, version, previous from promotions order by number")
    return [(row["kind"], row["version"], row["previous"]) for row in found]


def decisions(uri: str, run_id: str) -> list[int]:
    """The records that the run's decisions were made against."""
    folder = f"runs/tiny/{run_id}/decisions"
    return sorted(int(key.removeprefix(f"{folder}/").removesuffix(".json")) for key, _ in open_store(uri).list(folder))


def passed(document: dict[str, Any], rule: str) -> bool | None:
    (found,) = [row["passed"] for row in document["gate"] if row["rule"] == rule]
    return found  # type: ignore[no-any-return]


def more(place: Place, uri: str, batch: str) -> None:
    """Bring another batch in, so that the next `retrain` makes another version."""
    assert place.run(uri, "ingest", "tiny.yaml", batch, "--batch", batch).document["accepted"] > 0


@pytest.mark.slow
def test_a_rollback_after_a_kill_right_after_the_promotion_stands(
    place: Place, retrained: Scene, tmp_path: Path
) -> None:
    uri = copy(retrained.after, (tmp_path / "store").as_uri())
    first = retrained.ended.document["version"]
    more(place, uri, "second")
    place.killed(uri, RETRAIN, Kill(AFTER, pattern="^promotions/"))
    second = history(uri)[-1][1]
    rollback = place.run(uri, "rollback", "tiny.yaml", "--reason", "it looked odd").document
    assert rollback["champion"] == first
    stands = [("promotion", first, None), ("promotion", second, first), ("rollback", first, second)]
    assert history(uri) == stands

    again = place.run(uri, *RETRAIN).document
    assert (again["verdict"], again["version"], again["champion"]) == ("promoted", second, first)
    assert history(uri) == stands
    assert decisions(uri, again["run_id"]) == [1]
    nothing_new(place, uri, RETRAIN)
    assert sql(open_store(uri), "select version, verdict from runs order by finished_at") == [
        {"version": first, "verdict": "promoted"},
        {"version": second, "verdict": "promoted"},
    ]


@pytest.mark.slow
def test_a_version_taken_down_after_a_kill_right_before_its_promotion_is_weighed_again_and_refused(
    place: Place, retrained: Scene, tmp_path: Path
) -> None:
    uri = copy(retrained.after, (tmp_path / "store").as_uri())
    first = retrained.ended.document["version"]
    more(place, uri, "second")
    place.killed(uri, RETRAIN, Kill(BEFORE, pattern="^promotions/"))
    assert len(history(uri)) == 1
    (second,) = {m["version"] for m in place.run(uri, "models", "tiny.yaml").document} - {first}
    place.run(uri, "promote", "tiny.yaml", "--version", second, "--reason", "it cannot wait")
    place.run(uri, "rollback", "tiny.yaml", "--reason", "it could have")
    taken_down = [("promotion", first, None), ("override", second, first), ("rollback", first, second)]

    again = place.run(uri, *RETRAIN, status=4).document
    assert (again["verdict"], again["version"], again["champion"]) == ("refused", second, first)
    assert [r["rule"] for r in again["gate"] if r["passed"] is False] == ["rolled-back"]
    assert passed(again, "stale-snapshot") is True
    assert history(uri) == taken_down
    assert decisions(uri, again["run_id"]) == [1, 3]
    nothing_new(place, uri, RETRAIN)


@pytest.mark.slow
def test_a_version_killed_right_before_its_promotion_is_weighed_again_against_whom_a_rollback_made_champion(
    place: Place, retrained: Scene, tmp_path: Path
) -> None:
    uri = copy(retrained.after, (tmp_path / "store").as_uri())
    first = retrained.ended.document["version"]
    more(place, uri, "second")
    second = place.run(uri, *RETRAIN).document["champion"]
    more(place, uri, "third")
    place.killed(uri, RETRAIN, Kill(BEFORE, pattern="^promotions/"))
    assert place.run(uri, "rollback", "tiny.yaml", "--reason", "it looked odd").document["champion"] == first

    again = place.run(uri, *RETRAIN).document
    third = again["version"]
    assert (again["verdict"], again["champion"]) == ("promoted", third) and third not in (first, second)
    assert history(uri)[1:] == [("promotion", second, first), ("rollback", first, second), ("promotion", third, first)]
    assert decisions(uri, again["run_id"]) == [2, 3]
    weighed = sql(open_store(uri), f"select champion_before from runs where run_id = '{again['run_id']}'")
    assert weighed == [{"champion_before": first}]
    assert passed(again, "rolled-back") is True and passed(again, "stale-snapshot") is True
    nothing_new(place, uri, RETRAIN)
