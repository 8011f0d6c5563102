"""`models --show`, `models --diff`, `explain`, `reproduce`: what a person asks about versions and decisions."""

from __future__ import annotations

import json

import pytest

from tests.e2e.commands.places import Place, flip, retrained
from tests.e2e.helpers import call, command, listing, rows


def test_one_version_laid_open(champions: Place) -> None:
    a, c = champions.told["A"], champions.told["C"]["version"]
    document = champions("models", "--show", a["version"]).document
    assert (document["version"], document["champion"], document["damage"]) == (a["version"], False, None)
    assert document["metrics"] == {"cv": a["cv"], "holdout": a["holdout"]}
    assert document["data"]["batches"] == ["monday"] and document["data"]["snapshot"] == a["snapshot"]
    assert document["config"]["training"]["epochs"] == 2
    lineage = document["lineage"]
    assert lineage["snapshot"] == document["data"]["content"]
    assert lineage["started_at"] < lineage["finished_at"] and lineage["hardware"]["cpus"] >= 1
    assert {"contract.json", "model_card.md", "metrics.json", "lineage.json"} <= set(document["files"])
    (accepted,) = rows(champions.store, "select contract from batches where batch = 'monday'")
    assert document["data"]["contract"] == accepted["contract"]
    assert [record["number"] for record in document["promotions"]] == [1]
    assert champions("models", "--show", c).document["champion"] is True
    told = call("models", champions.yaml, "--show", a["version"], "--store", champions.store)
    assert told.status == 0 and "config.training.epochs" in told.out and lineage["snapshot"] in told.out


def test_two_versions_side_by_side(champions: Place) -> None:
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    document = champions("models", "--diff", a, b).document
    differing = {each["key"]: (each["left"], each["right"]) for each in document["differences"]}
    assert differing["data.batches"] == (["monday"], ["monday", "tuesday"])
    assert not [key for key in differing if key.startswith("config.")]
    assert document["versions"] == [a, b]
    same = champions("models", "--diff", b, c).document["differences"]  # another seed on the same data
    alike = ("config.", "data.", "classes", "lineage.code.")
    assert [each["key"] for each in same if each["key"].startswith(alike)] == ["config.training.seed"]
    told = call("models", champions.yaml, "--diff", a, b, "--store", champions.store)
    assert told.status == 0 and "differ (marked *)" in told.out


def test_a_version_that_is_not_there(champions: Place) -> None:
    a = champions.told["A"]["version"]
    for arguments in (["--show", "0123456789ab"], ["--diff", a, "0123456789ab"]):
        result = champions("models", *arguments)
        assert result.status == 1 and a in str(result.error["expected"])
    for arguments in (["--show", "../A"], ["--show", a, "--diff", a, a]):
        assert champions("models", *arguments).status == 2


def test_why_a_candidate_was_promoted_and_refused(champions: Place) -> None:
    a, c = champions.told["A"], champions.told["C"]
    newest = champions("explain").document
    assert (newest["run_id"], newest["verdict"], newest["champion"]) == (c["run_id"], "promoted", c["version"])
    assert newest["against"] == champions.told["B"]["version"]
    first = champions("explain", a["run_id"]).document
    assert "while there was no champion and promoted it" in first["paragraph"]
    champions.configure(gate=[{"rule": "at_most", "metric": "log_loss", "value": 0.000001}])
    refused = retrained(champions("retrain"), 4)
    found = champions("explain").document
    assert (found["run_id"], found["verdict"]) == (refused["run_id"], "refused")
    change = next(each for each in found["would_change"] if each["rule"] == "at_most")
    assert change["needed"] == 0.000001 and change["by"] > 0
    told = call("explain", champions.yaml, "--store", champions.store)
    assert told.status == 0 and "refused it" in told.out
    result = champions("explain", "0123456789ab")
    assert result.status == 1 and a["run_id"] in str(result.error["expected"])


@pytest.mark.slow
def test_a_run_is_reproduced_bit_for_bit_and_nothing_is_written(champions: Place) -> None:
    before = listing(champions.store)
    champions.configure(training={"epochs": 1, "folds": 2})  # today's YAML is not what the run was trained by
    run = champions.told["C"]  # another seed, after another champion
    result = command("reproduce", run["run_id"], "--store", champions.store, "--json", cwd=champions.folder)
    assert result.status == 0, result.told()
    document = result.document
    assert (document["equal"], document["largest_difference"], document["differs"]) == (True, 0.0, [])
    assert (document["run_id"], document["version"]) == (run["run_id"], run["version"])
    assert listing(champions.store) == before
    result = call("reproduce", "0123456789ab", "--store", champions.store, "--json")
    assert result.status == 1 and "runs PIPELINE" in str(result.error["expected"])


def test_a_run_that_is_not_reproduced_is_status_1_with_its_document(champions: Place) -> None:
    """Another seed in the package's configuration trains another model: neither holdout nor folds are reached."""
    run = champions.told["A"]
    path = champions.store / "models/small" / run["version"] / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["config"]["training"]["seed"] = 1
    path.write_text(json.dumps(manifest))
    before = listing(champions.store)
    arguments = ("reproduce", run["run_id"], "--folds", "--store", champions.store)
    result = call(*arguments, "--json")
    assert result.status == 1, result.told()
    document = result.document
    assert (document["equal"], document["within_tolerance"]) == (False, False)
    assert document["largest_difference"] > document["tolerance"] == 0.001
    assert document["examples"] == run["examples"]["holdout"]
    assert [fold["fold"] for fold in document["folds"]] == [0, 1]
    assert sum(fold["examples"] for fold in document["folds"]) == run["examples"]["train"]
    assert result.err.splitlines()[-1] == f"leptonflow: not reproduced: {document['sentence']}"
    assert listing(champions.store) == before
    # A failure to compare at all prints the error, and no document.
    predicted = champions.store / "runs/small" / run["run_id"] / "holdout-predictions.parquet"
    flip(predicted)
    result = call(*arguments, "--json")
    assert result.status == 1 and "holdout-predictions.parquet" in str(result.error["message"])
