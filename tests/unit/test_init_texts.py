"""What `init` sees in a source of texts, and how it tells one from a source of images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli import pipeline_template
from leptonflow.core import pipeline_files
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.data.ingest.source_summary import Summary, summarise
from leptonflow.data.ingest.source_workload import choose
from schemas.errors import UsageError
from schemas.text_classification import TextInput
from tests.batches import put

ROWS = [("pos", "a.png", "Fine", "a good and long day"), ("neg", "b.png", "Bad", "rain"), ("pos", "c.png", "", "sun")]
HEADER = ("label", "image", "title", "text")


def table(path: Path, *names: str, rows: Sequence[tuple[str, ...]] = ROWS) -> Path:
    """A CSV of these columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([row[HEADER.index(name)] for name in names] for row in rows)
    return path


def seen(source: Path, columns: Columns = DEFAULT) -> tuple[Summary, str]:
    chosen = choose(source, columns, None)
    return summarise(chosen.source, chosen.workload), chosen.why or ""


def test_a_table_of_texts_is_proposed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, why = seen(table(tmp_path / "t.csv", "label", "title", "text"))
    assert (found.workload.name, found.classes, found.columns, why) == (
        "text_classification", {"neg": 1, "pos": 2}, ("text",), "",
    )  # fmt: skip
    told = "\n".join([*found.lines(), *found.warnings()])
    assert "texts in 'text'" in told and "3 inspected: 1 to 5 words" in told
    assert "'title' may hold texts too: --text-column title --text-column text joins them" in told
    document = found.document()
    assert json.loads(json.dumps(document)) == document and document["words"] == {"median": 1, "most": 5}
    pipeline_template.write("mood", found)
    config = pipeline_files.load_config("mood")
    assert (config.workload, config.input.columns, config.input.length) == ("text_classification", ("text",), 16)
    assert config.classes == ("neg", "pos") and config.model.kind == "bag"
    assert "characters" in Path("pipelines/mood.contract.yaml").read_text()
    joined, _ = seen(tmp_path / "t.csv", Columns(cells=("title", "text")))
    assert joined.document()["input"]["columns"] == ["title", "text"]
    assert not any("may hold texts" in line for line in joined.warnings())


def test_odd_columns_of_text_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = 'no: "x", [y] # \u00fc'
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("mood", odd), ("good", "a b"), ("bad", "c d")])
    found, _ = seen(tmp_path / "t.csv", Columns(label="mood", cells=(odd,)))
    pipeline_template.write("odd", found)
    own = pipeline_files.load_config("odd").input
    assert (own.columns, own.label) == ((odd,), "mood")
    assert "label" not in TextInput().model_dump(), "a pipeline without it keeps its digests"


def test_paths_that_lead_to_files_are_the_examples(tmp_path: Path) -> None:
    found, why = seen(table(tmp_path / "t.csv", *HEADER))
    assert found.workload.name == "text_classification"
    assert "read as texts in 'text', since 'image' leads to no files" in why
    put(tmp_path, "a.png", "b.png", "c.png")
    found, why = seen(tmp_path / "t.csv")
    assert found.workload.name == "image_classification" and found.classes == {"neg": 1, "pos": 2}
    assert "read as images, since 'image' leads to them; --text-column takes 'text'" in why
    found, why = seen(tmp_path / "t.csv", Columns(cells=("text",)))
    assert (found.workload.name, why) == ("text_classification", "")
    found, why = seen(tmp_path / "t.csv", Columns(path="image"))
    assert (found.workload.name, why) == ("image_classification", "")


def test_a_folder_is_what_most_of_its_files_are(tmp_path: Path) -> None:
    put(tmp_path / "photos", "cat/a.png", "cat/b.png", "dog/c.png")
    for name in ("cat/a.txt", "cat/b.txt", "dog/c.txt", "dog/notes.txt"):
        (tmp_path / "photos" / name).write_text("0 0.5 0.5 1 1")
    found, why = seen(tmp_path / "photos")
    assert found.workload.name == "image_classification" and found.classes == {"cat": 2, "dog": 1}
    assert "by their names, 3 files are of images, and 4 of texts" in why
    for label, text in (("good", "a fine day"), ("bad", "it rained")):
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "words.vocab").write_text("a")
        (tmp_path / "texts" / label / "1.txt").write_text(text)
    found, why = seen(tmp_path / "texts")
    assert (found.workload.name, found.classes, why) == ("text_classification", {"bad": 1, "good": 1}, "")
    assert "columns" not in found.document()["input"]


def test_a_table_without_such_columns_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    source.write_text("Words,Mood\na b,good\nc d,bad\n")
    for columns, told in (
        (DEFAULT, "known to hold examples.*text, sentence.*Words, Mood"),
        (Columns(cells=("Words",)), "known to hold labels.*--label-column"),
        (Columns(cells=("Word",), label="Mood"), "no such column.*Words, Mood.*Word"),
        (Columns(cells=("Words",), path="Words"), "--path-column or --text-column"),
    ):
        with pytest.raises(UsageError) as error:
            choose(source, columns, None)
        assert re.search(told, error.value.line()), error.value.line()
    chosen = choose(source, Columns(cells=("Words",), label="Mood"), None)
    assert chosen.workload.noun == "texts"
    few = [line for line in summarise(chosen.source, chosen.workload).warnings() if "fewer than 10" in line]
    assert few and "'bad' (1), 'good' (1); folds need" in few[0]
    source.write_bytes("texte fran\u00e7ais,label\nbien,good\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"t\.csv cannot be read.*line 1: the byte 0xe7 is not UTF-8"):
        choose(source, DEFAULT, None)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (Columns(cells=("label",)), "read as text and as label"),
        (Columns(label="text"), "read as text and as label"),
        (Columns(cells=("text", "text")), "named twice"),
    ],
)
def test_a_column_is_text_or_label_and_named_once(tmp_path: Path, columns: Columns, told: str) -> None:
    source = table(tmp_path / "t.csv", "label", "text")
    with pytest.raises(UsageError, match=told):
        seen(source, columns)


def test_no_other_column_of_texts_is_not_told(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "text", "label"), ("a b", "c d", "pos"), ("e f", "g h", "neg")])
    found, _ = seen(tmp_path / "t.csv")
    assert not any("may hold texts" in line for line in found.warnings())


def test_labels_that_are_free_text_are_told_and_make_no_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(f"text number {n}", f"what somebody wrote about text {n // 2 if n < 4 else n}") for n in range(20)]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    found, _ = seen(tmp_path / "t.csv")
    told = [line for line in found.warnings() if "free text" in line]
    assert told == [
        "the labels look like free text: 18 different ones in 20 examples; --label-column names the column of labels"
    ]
    assert not any("fewer than 10" in line for line in found.warnings())
    text = pipeline_template.write("free", found).read_text()
    config = pipeline_files.load_config("free")
    assert config.classes is None and "look like free text" in text
    assert "# group: {column: patient}" in text and "{folder: parent}" not in text and "pattern" not in text


def test_labels_that_may_be_typing_errors_are_told_with_their_counts(tmp_path: Path) -> None:
    rows = [(f"text number {n}", "positive" if n % 2 else "negative") for n in range(40)]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows, ("one more", "positve"), ("a", "Nega tive")])
    found, _ = seen(tmp_path / "t.csv")
    alike, near, few = found.warnings()
    assert alike.startswith("the labels 'Nega tive', 'negative' look alike and are taken as 2 different labels")
    assert near == "rare labels that are spelt nearly like another: 'positve' (1) like 'positive' (20); typing errors?"
    assert few.startswith("classes with fewer than 10 examples: 'Nega tive' (1), 'positve' (1); folds need some")


def test_rows_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"text,label\na fine day,good\ncaf\xe9,bad\nrain,bad\n")
    found, _ = seen(tmp_path / "t.csv")
    (told,) = [line for line in found.warnings() if "quarantine" in line]
    assert told.startswith("1 row goes to quarantine, such as t.csv[1] (not-utf8: line 3, column 'text': the byte 0xe9")
    assert found.classes == {"bad": 1, "good": 1}


@pytest.mark.parametrize(("empty", "told"), [(1, "1 without a label, which goes"), (2, "2 without a label, which go")])
def test_rows_without_a_label_are_told(tmp_path: Path, empty: int, told: str) -> None:
    (tmp_path / "t.csv").write_text("text,label\na fine day,good\nrain,bad\n" + "snow,\n" * empty)
    found, _ = seen(tmp_path / "t.csv")
    assert [line.strip() for line in found.lines() if "without a label" in line] == [f"{told} to quarantine"]


def test_a_column_whose_name_stands_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,label\na fine day,good,1\nrain,bad,2\n")
    found, _ = seen(tmp_path / "t.csv")
    assert "several columns are called 'label': the first is read" in found.warnings()


def test_rows_whose_files_are_missing_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\nC:\\a.png,x\nb.png,y\n")
    found, _ = seen(tmp_path / "t.csv")
    (told,) = [line for line in found.warnings() if "quarantine" in line]
    assert told.startswith("2 rows go to quarantine, such as t.csv[0] (path-escape: 'C:")


@pytest.mark.parametrize(
    ("name", "told"),
    [("t.csv", "the table has no rows"), ("photos.zip", "Unpack it"), ("t.xlsx", "Save the sheet as CSV"),
     ("t.json", "as .jsonl"), ("folder/photos.zip", "Unpack it")],
)  # fmt: skip
def test_what_is_no_source_is_told_with_what_to_do(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_bytes(b"text,label\n")
    with pytest.raises(UsageError) as error:
        choose(tmp_path / name.split("/")[0], DEFAULT, None)
    assert told in error.value.line()
