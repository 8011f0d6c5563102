"""`promote`, `rollback`, `history`: who is champion, who decided it, and what damage does not change."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.e2e.commands.places import KEYS, Place, flip, retrained
from tests.e2e.helpers import call, listing, rows


def test_rollback_goes_from_c_over_b_to_a_and_no_further(champions: Place) -> None:
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    for version, before in ((b, c), (a, b)):
        result = champions("rollback", "--reason", "worse in the field")
        assert result.status == 0, result.told()
        assert result.document["champion"] == version
        record = result.document["record"]
        assert (record["kind"], record["previous"], record["reason"]) == ("rollback", before, "worse in the field")
        assert record["who"]
    assert champions("status").document["champion"] == a
    result = champions("rollback", "--reason", "once more")
    assert result.status == 1
    assert len(champions.history()) == 5
    # A run after a rollback does not undo it, and nothing is new.
    again = retrained(champions("retrain"), 0)
    assert (again["verdict"], again["champion"]) == ("unchanged", a)
    # By name, forwards too; and what a person rolled back comes again only by `promote`.
    result = champions("rollback", "--to", c, "--reason", "was better")
    assert result.status == 0 and result.document["champion"] == c
    assert champions("rollback", "--to", "abcdefabcdef", "--reason", "x").status == 1
    assert champions("rollback", "--to", c, "--reason", "x").status == 1
    assert champions("rollback", "--to", b, "--reason", " ").status == 2
    assert len(champions.history()) == 6


def test_what_a_person_rolled_back_is_promoted_again_only_by_promote(champions: Place) -> None:
    a, b = (champions.told[name]["version"] for name in "AB")
    for _ in range(2):
        assert champions("rollback", "--reason", "bad").status == 0
    champions.configure(gate=[{"rule": "at_least", "metric": "accuracy", "value": 0.1}])
    document = retrained(champions("retrain"), 4)  # another gate over the same data: B is weighed again
    assert (document["version"], document["verdict"], document["champion"]) == (b, "refused", a)
    failed = [rule for rule in document["gate"] if rule["passed"] is False]
    assert [rule["rule"] for rule in failed] == ["rolled-back"]
    result = champions("promote", "--version", b, "--reason", "it was the camera")
    assert result.status == 0
    assert (result.document["champion"], result.document["record"]["kind"]) == (b, "override")


def test_rollback_without_an_earlier_champion(copy: Place) -> None:
    before = listing(copy.store)
    result = copy("rollback", "--reason", "x")
    assert result.status == 1
    assert copy.told["A"]["version"] in result.told()
    assert listing(copy.store) == before


def test_rollback_without_any_champion(copy: Place) -> None:
    shutil.rmtree(copy.store / "promotions")
    assert copy("rollback", "--reason", "x").status == 1
    assert copy("status").document["champion"] is None


def test_promote(champions: Place) -> None:
    a, c = (champions.told[name]["version"] for name in "AC")
    before = listing(champions.store)
    result = champions("promote", "--version", c, "--reason", "it is that already")
    assert (result.status, result.document) == (0, {"champion": c, "record": None})
    assert listing(champions.store) == before
    result = champions("promote", "--version", "0123456789ab", "--reason", "x")
    assert result.status == 1 and a in str(result.error["expected"])
    assert champions("promote", "--version", "../A", "--reason", "x").status == 2
    assert champions("promote", "--version", a, "--reason", "").status == 2
    result = champions("promote", "--version", a, "--reason", "an audit asked for it")
    assert result.status == 0
    assert result.document["record"] == champions.history()[-1]
    columns = {"number", "version", "previous", "run_id", "kind", "who", "reason", "at", "against"}
    assert set(champions.history()[-1]) == columns
    assert rows(champions.store, "select kind, reason from promotions where number = 4") == [
        {"kind": "override", "reason": "an audit asked for it"}
    ]


@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "labels.json", "config.json", "manifest.json"])
def test_a_damaged_package_is_named_and_never_champion(champions: Place, name: str, first: Place) -> None:
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    before = champions.history()
    flip(champions.store / "models/small" / b / name)
    for arguments in (["promote", "--version", b], ["rollback"], ["rollback", "--to", b]):
        result = champions(*arguments, "--reason", "x")
        assert result.status == 1, result.told()
        assert f"{b}/{name}" in result.told()
        if arguments[0] == "rollback":
            assert a in str(result.error["hint"])  # the newest whole one
    assert champions.history() == before
    flip(champions.store / "models/small" / c / name)
    image = next((first.folder / "monday" / "0").glob("digit*"))
    result = champions("predict", image)
    assert result.status == 1
    assert f"{c}/{name}" in result.told()


def test_a_damaged_log_is_named_and_makes_nobody_champion(champions: Place) -> None:
    record = champions.store / "promotions/small/log/00000002.json"
    whole = record.read_bytes()
    for data in (b"garbage", whole.replace(b"promotion", b"promotioN", 1), None):
        record.write_bytes(data) if data is not None else record.unlink()
        for arguments in (["status"], ["history"], ["rollback", "--reason", "x"], ["retrain"]):
            result = champions(*arguments)
            assert result.status == 1, (data, arguments, result.told())
            assert "promotions/small/log/0000000" in result.told()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"rule": "latency", "value": 0.0001}, "95 of 100 predictions take up to .* ms, at most 0.0001 is required"),
        pytest.param(
            {"rule": "size", "value": 0.0001},
            "the package has .* MB, at most 0.0001 is required",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_override_skips_the_budgets(champions: Place, rule: dict[str, object], told: str) -> None:
    """The recorded pass spares the second load, and its measurements are held against today's budgets."""
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    champions.configure(gate=[*KEYS["gate"], rule])
    before = listing(champions.store)
    for arguments in (["promote", "--version", a], ["rollback"], ["rollback", "--to", b]):
        result = champions(*arguments, "--reason", "it is urgent")
        assert result.status == 1, result.told()
        assert "does not pass its infra-validation" in str(result.error["message"])
        assert re.fullmatch(told, str(result.error["received"]))
    assert listing(champions.store) == before and champions("status").document["champion"] == c
    # Without a recorded pass it is loaded and measured, and refused all the same.
    shutil.rmtree(champions.store / "models/small" / a / "infra")
    result = champions("promote", "--version", a, "--reason", "it is urgent")
    assert result.status == 1 and re.fullmatch(told, str(result.error["received"]))
    assert len(champions.history()) == 3
    champions.configure(gate=[*KEYS["gate"], {**rule, "value": 1e6}])
    assert champions("promote", "--version", a, "--reason", "it is urgent").document["champion"] == a


def test_a_gap_longer_than_a_read_looks_ahead_makes_nobody_champion(champions: Place) -> None:
    """As if a backup had brought back the first record and the last ones."""
    log = champions.store / "promotions/small/log"
    (log / "00000002.json").unlink()
    (log / "00000003.json").rename(log / "00000030.json")
    (log / "00000030 (copy).json").write_text("whatever a person puts beside them")
    before = listing(champions.store)
    told = "promotions/small/log/00000002.json is missing, though record 30 is there"
    version = champions.told["A"]["version"]
    for arguments in (
        ["status"], ["history"], ["models"], ["models", "--show", version], ["rollback", "--reason", "x"],
        ["promote", "--version", version, "--reason", "x"], ["predict", champions.yaml], ["retrain"],
    ):  # fmt: skip
        result = champions(*arguments)
        assert result.status == 1 and told in str(result.error["message"]), (arguments, result.told())
    checks = {c["name"]: c for c in call("doctor", "--store", champions.store, "--json").document["checks"]}
    assert not checks["logs"]["ok"] and told in checks["logs"]["detail"]
    assert {k: v for k, v in listing(champions.store).items() if not k.startswith("doctor/")} == before
