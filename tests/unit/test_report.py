"""The report: one file that opens offline, tells the verdict first and trusts no name from outside."""

from __future__ import annotations

import base64
import io
import re
import uuid
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leptonflow.data.validation.drift import ClassShare, Drift, Moved
from leptonflow.reports import html_report, plots, wording
from leptonflow.runs import recording
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.training import fit_cost
from leptonflow.workloads import predictions
from leptonflow.workloads.base import Mark, Shown
from leptonflow.workloads.classification import ONE_CLASS
from leptonflow.workloads.classification_errors import MOST_SHOWN
from leptonflow.workloads.media.image import thumbnail
from schemas.errors import Damaged
from schemas.records import RuleResult
from tests import run_examples
from tests.run_examples import HOSTILE

make = partial(run_examples.make, page=None)


def page(run: Any, store: Store, **changed: Any) -> str:
    """The report that `record` leaves for this run."""
    recording.record(store, run.config, run.plan, run.results(**changed))
    return store.get(f"runs/{run.config.name}/{run.verdict.run_id}/report.html").decode()


@pytest.fixture
def memory() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that looks at no plot: they take most of a report's time."""
    for plot in ("folds", "curves", "reliability", "operating_curve"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: "<svg></svg>")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text as a reader sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("td", "th", "p") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_opens_offline(memory: Store) -> None:
    """No address of anything outside the file, no script, and a policy that forbids both."""
    html = page(make(memory, champion="0123456789ab"), memory)
    found = Tags(html)
    assert not re.search(r"https?:|//[a-z]", html.replace("data:image/png;base64,", "").split("</style>")[0])
    links = ("src", "href", "xlink:href")
    sources = [value for _, attrs in found.tags for name, value in attrs.items() if name in links]
    assert sources and all(str(value).startswith(("data:image/png;base64,", "#")) for value in sources)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html)
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.usefixtures("unplotted")
def test_the_verdict_comes_first_and_every_rule_has_its_numbers(memory: Store) -> None:
    run = make(memory, promoted=False, accuracy=0.7)
    text = Tags(page(run, memory).split("<body>")[1]).text
    flat = " ".join(text.split())
    failed = run.verdict.rules[0]
    assert flat.startswith(
        f"digits refused Version {run.verdict.version} was refused; there is no champion. "
        f"The candidate failed at_least: {failed.sentence}. "
        "It would have passed at_least with accuracy of at least 0.9 instead of "
    )
    assert f"{failed.sentence}would have passed with accuracy of at least 0.9" in flat, "under the rule's sentence"
    for rule in run.verdict.rules:
        assert rule.sentence in flat
    assert "✗ failed" in flat and "✓ passed" in flat and "not applicable" in flat
    assert f"{run.verdict.rules[0].value:.4f} 0.9000" in flat


@pytest.mark.parametrize("classes", [("a", HOSTILE, "名前"), tuple(f"{HOSTILE}{n}" for n in range(40))])
def test_names_from_outside_are_text(memory: Store, classes: tuple[str, ...]) -> None:
    """A class, a file and a sentence may say anything: they stay text, and cannot reorder what stands beside them."""
    run = make(memory, classes=classes, sources=HOSTILE + "/{n}.png", accuracy=0.5)
    rules = [rule.model_copy(update={"sentence": HOSTILE}) for rule in run.verdict.rules]
    verdict = run.verdict.model_copy(update={"rules": tuple(rules)})
    html = page(run, memory, verdict=verdict)
    found = Tags(html)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "<script>alert(1)</script>\\u202e$x^2$\\n&amp;" in found.text
    assert "\u202e" not in html


def test_the_sections_come_in_order(memory: Store) -> None:
    html = page(make(memory, champion="0123456789ab", accuracy=0.8), memory)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Gate",
        "Candidate and champion on the same holdout",
        "Cross-validation",
        "Learning curves",
        "Confusion matrix on the holdout",
        "By class and by batch",
        "Calibration",
        "The worst mistakes",
        "Changed predictions",
        "Data",
        "Lineage",
        "Error rates of this gate",
    ]


def contents(run: Any, store: Store, **changed: Any) -> html_report.Contents:
    """What `record` gives to the report, with some of it changed."""
    found: list[html_report.Contents] = []

    def keep(given: html_report.Contents) -> bytes:
        found.append(given)
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_report, "render", keep)
        recording.record(store, run.config, run.plan, run.results())
    return replace(found[0], **changed)


@pytest.mark.usefixtures("unplotted")
def test_texts_are_shown_with_the_words_that_mattered(memory: Store) -> None:
    """Each marked part is a part of the text, escaped; what has no effect to speak of is not marked."""
    given = contents(make(memory, accuracy=0.5), memory)
    text = f"{HOSTILE} rain  or\nhail"
    some = (Mark(len(HOSTILE) + 1, len(HOSTILE) + 5, 0.31), Mark(len(text) - 4, len(text), -0.05), Mark(0, 1, 0.001))
    marks = tuple(sorted(some))
    shown = {index: Shown(text=text, marks=marks) for index in given.analysis.shown}
    html = html_report.render(replace(given, shown=shown, note="Blue words speak for it.")).decode()
    section = html.split("<h2>The worst mistakes</h2>")[1].split("</section>")[0]
    assert section.count("Blue words speak for it.") == 1
    quote = re.findall("<blockquote>(.*?)</blockquote>", section)[0]
    assert "<script" not in quote and "\u202e" not in quote
    assert ' <mark class="for" style="--share: 1">rain</mark> or <mark class="against" style="--share: 0.2">' in quote
    caption = " ".join(Tags(section).text.split())
    assert "rain +0.31 hail −0.05" in caption


@pytest.mark.usefixtures("unplotted")
def test_slices_of_the_workload_have_a_table_each(memory: Store) -> None:
    given = contents(make(memory, champion="0123456789ab"), memory)
    assert given.analysis is not None
    slices = {"words": given.analysis.per_batch, "length": given.analysis.per_batch}
    html = html_report.render(replace(given, analysis=replace(given.analysis, per_slice=slices))).decode()
    assert "<h2>By class, by batch, by words and by length</h2>" in html
    assert re.findall(r"<th>(words|length)</th><th class=\"n\">holdout</th>", html) == ["words", "length"]


@pytest.mark.usefixtures("unplotted")
def test_intervals_warnings_and_looks_are_told(memory: Store) -> None:
    run = make(memory, champion="0123456789ab")
    rule = run.verdict.rules[1].model_copy(
        update={"value": 0.0137, "low": -0.0021, "high": 0.0301, "confidence": 0.975, "n": 400, "method": "tango score"}
    )
    changed = {"rules": (rule,), "looks": 7, "warnings": (f"used too often {HOSTILE}", "too few examples")}
    verdict = run.verdict.model_copy(update=changed)
    given = contents(run, memory, verdict=verdict, paragraph="It would have passed with 900 examples.")
    text = " ".join(Tags(html_report.render(given).decode().split("<body>")[1]).text.split())
    assert "against_championaccuracy 0.0137−0.0021 to 0.0301 −0.0100at 97.5% 400tango score ✓ passed" in text
    assert "too few examples" in text and "used too often <script>alert(1)</script>" in text
    assert "7 earlier holdout evaluations" in text
    assert text.index("900 examples") < text.index("too few examples") < text.index("Gate")


@pytest.mark.usefixtures("unplotted")
def test_a_warning_that_the_paragraph_gives_is_not_said_twice(memory: Store) -> None:
    run = make(memory, champion="0123456789ab")
    changed = {"warnings": ("with 400 examples it is a coin",)}
    told = "Version a was promoted; with 400 examples it is a coin."
    given = contents(run, memory, verdict=run.verdict.model_copy(update=changed), paragraph=told)
    assert html_report.render(given).decode().count("with 400 examples it is a coin") == 1


@pytest.mark.usefixtures("unplotted")
def test_every_metric_has_its_intervals_and_every_value_its_unit(memory: Store) -> None:
    run = make(memory, champion="0123456789ab", accuracy=0.8)
    units = (("latency", 2.141, 50.0), ("size", 2.1505, 5.0))
    rules = tuple(
        RuleResult(rule=name, metric=None, value=value, bound=most, passed=True, sentence="told")
        for name, value, most in units
    )
    verdict = run.verdict.model_copy(update={"rules": (*run.verdict.rules, *rules)})
    given = contents(run, memory, verdict=verdict)
    html = html_report.render(given).decode()
    text = " ".join(Tags(html).text.split())
    assert "2.1410 ms 50 ms" in text and "2.1505 MB 5 MB" in text
    section = html.split("Candidate and champion on the same holdout")[1].split("</section>")[0]
    rows = re.findall(r"<tr><td>(\w+)</td>(.*?)</tr>", section)
    assert [name for name, _ in rows] == ["accuracy", "precision", "recall", "f1", "log_loss"]
    for name, row in rows:
        shown = given.between[name]
        assert shown.candidate and shown.champion and shown.difference
        for ends in (shown.candidate, shown.champion, shown.difference):
            assert wording.interval(*ends) in row


@pytest.mark.usefixtures("unplotted")
def test_stages_are_told_in_the_order_of_the_flow(memory: Store) -> None:
    run = make(memory)
    recorded = {"evaluate": 2.0, "promote": 0.1, "train-fold": 30.0, "fit-final": 6.0, "of a later release": 1.0}
    given = contents(run, memory)
    html = html_report.render(replace(given, document={**given.document, "seconds": recorded})).decode()
    told = re.findall(r"<tr><td>([\w -]+?)(?: <span[^>]*>\d+ folds</span>)?</td><td class=\"n\">[\d.]+ s</td>", html)
    assert told == ["train-fold", "fit-final", "evaluate", "promote", "of a later release"]


@pytest.mark.usefixtures("unplotted")
def test_what_the_training_took_is_one_line(memory: Store) -> None:
    run = make(memory)
    told = "30 s on gpu:0, 1,234 examples/s, 3% of the time without a batch, 1.5 GiB of memory, 1.0 GiB of the device"
    assert told in page(run, memory), re.findall("<dt>training</dt>.*", page(run, memory))
    earlier = run.final.model_copy(update={"cost": None})
    assert fit_cost.together((*run.fits, earlier)) is None  # one of a release before


@pytest.mark.usefixtures("unplotted")
def test_slices_that_passed_are_folded_away_and_the_others_are_not(memory: Store) -> None:
    def sliced(name: str, passed: bool | None) -> RuleResult:
        return RuleResult(rule="slices", metric="accuracy", value=0.01, bound=-0.02, passed=passed, slice=name,
                          sentence=f"told of {name}")  # fmt: skip

    run = make(memory, champion="0123456789ab")
    slices = [sliced(f"class={n}", {3: False, 8: None}.get(n, True)) for n in range(10)]
    rules = (*run.verdict.rules, *slices, sliced("newest", True), sliced(f"batch={HOSTILE}", None))
    given = contents(run, memory, verdict=run.verdict.model_copy(update={"rules": rules}))
    gate = html_report.render(given).decode().split("<h2>Gate</h2>")[1].split("</section>")[0]
    folded = "".join(re.findall(r"<details.*?</details>", gate, re.DOTALL))
    opened = re.sub(r"<details.*?</details>", "", gate, flags=re.DOTALL)
    assert "class: 8 of 10 passed" in folded and "newest: 1 of 1 passed" in folded
    assert {n for n in range(10) if f"told of class={n}<" in opened} == {3, 8}
    assert {n for n in range(10) if f"told of class={n}<" in folded} == {0, 1, 2, 4, 5, 6, 7, 9}
    assert "not tested" in opened and "batch=&lt;script&gt;" in opened and "<script" not in gate


@pytest.mark.usefixtures("unplotted")
def test_what_changed_hands_is_shown_with_both_answers(memory: Store) -> None:
    run = make(memory, champion="0123456789ab", accuracy=0.8)
    given = contents(run, memory)
    pairs = given.analysis.pairs
    assert pairs is not None and pairs.only_champion > MOST_SHOWN
    html = html_report.render(given).decode()
    section = html.split("Changed predictions")[1].split("</section>")[0]
    lost, won = section.split("<h3>Won")
    assert f"({pairs.only_champion})" in lost and f"({pairs.only_candidate})" in won
    for part, examples in ((lost, given.analysis.lost), (won, given.analysis.won)):
        sources = [str(a["alt"]) for t, a in Tags(part).tags if t == "img"]
        assert sources == [example.source for example in examples] and len(sources) <= MOST_SHOWN
    first = given.analysis.lost[0]
    assert first.champion is not None
    said = " ".join(Tags(lost.split("<figcaption>")[1].split("</figcaption>")[0]).text.split())
    assert said == (
        f"{first.label}candidate{first.candidate.label} {first.candidate.probability:.3f}"
        f"champion{first.champion.label} {first.champion.probability:.3f}{first.source}"
    )
    assert f'<b class="failed">{pairs.only_champion}</b>' in html


@pytest.mark.usefixtures("unplotted")
def test_a_champion_that_cannot_be_compared_has_no_part(memory: Store) -> None:
    run = make(memory, champion="0123456789ab")
    evaluation = run.evaluation.model_copy(
        update={"champion_scores": None, "champion_predictions": None, "not_comparable": f"other classes {HOSTILE}"}
    )
    html = page(run, memory, evaluation=evaluation)
    assert "Changed predictions" not in html and "Not comparable: other classes &lt;script&gt;" in html
    assert "Example by example" not in html


def test_predictions_of_other_examples_are_refused(memory: Store) -> None:
    run = make(memory)
    with pytest.raises(Damaged, match="other examples"):
        page(run, memory, holdout=replace(run.holdout, ids=["x", *run.holdout.ids[1:]]))


@pytest.mark.usefixtures("unplotted")
def test_drift_and_lineage_are_shown_where_they_are(memory: Store) -> None:
    run = make(memory)
    moved = Moved(fact=HOSTILE, newest=120.0, rest=100.0, distance=0.61, p_value=1e-9)
    drift = Drift("wednesday", 400, 1400, (moved,), (ClassShare(HOSTILE, 0.5, 0.25),), 0.25)
    html = html_report.render(contents(run, memory, drift=drift)).decode()
    text = " ".join(Tags(html).text.split())
    assert "wednesday: 400 examples, against 1,400" in text and "120.00 100.00 0.610 < 0.001" in text
    assert "0.5000 0.2500 +0.2500" in text and "<script" not in html
    made = {"hardware": {"cpu": "abc", "cpus": 2}, "git_dirty": True, "seed": 0, "lock": None, "git_commit": None,
            "libraries": {"keras": "3.1", "numpy": "2"}, "started_at": "2026-11-24T15:20:01.123Z"}  # fmt: skip
    assert html_report._lineage(made) == [
        ("hardware cpu", "abc"), ("hardware cpus", "2"), ("git dirty", "yes"), ("seed", "0"),
        ("git commit", "none: the pipeline's folder is in no git repository"),
        ("libraries", "keras 3.1, numpy 2"), ("started at", "2026-11-24 15:20:01 UTC"),
    ]  # fmt: skip


def test_the_operating_curve_is_that_of_this_runs_discordance(memory: Store) -> None:
    run = make(memory, champion="0123456789ab", accuracy=0.8)
    given = contents(run, memory)
    pairs, shown = given.analysis.pairs, given.operating
    assert pairs is not None and shown is not None
    assert shown.curve.discordance == pytest.approx((pairs.only_candidate + pairs.only_champion) / 400)
    assert (shown.curve.n, shown.curve.margin, shown.curve.confidence) == (400, 0.01, 0.95)
    text = " ".join(Tags(html_report.render(given).decode()).text.split())
    assert shown.curve.sentence[1:] in text and "candidate and champion on this holdout" in text


def test_without_a_champion_the_discordance_is_assumed_and_said_to_be(memory: Store) -> None:
    run = make(memory)
    given = contents(run, memory)
    p = []
    for fit in run.fits:
        _, labels, found = predictions.read(ONE_CLASS, memory.get(fit.files[0].key), run.manifest.classes)
        p += [float(row[label]) for row, label in zip(found, labels, strict=True)]
    assert given.operating is not None
    assert given.operating.curve.discordance == pytest.approx(2 * sum(x * (1 - x) for x in p) / len(p))
    assert "assumed without a champion" in html_report.render(given).decode()
    unpaired = run.config.model_copy(update={"gate": run.config.gate[:1]})
    other = open_store(f"memory://{uuid.uuid4().hex}")
    assert contents(replace(make(other), config=unpaired), other).operating is None


def test_a_margin_that_no_curve_can_be_drawn_for_ends_no_run(memory: Store) -> None:
    run = make(memory, champion="0123456789ab")
    wide = run.config.gate[1].model_copy(update={"margin": 1.5})
    given = contents(replace(run, config=run.config.model_copy(update={"gate": (wide,)})), memory)
    assert given.operating is None and "Error rates of this gate" not in html_report.render(given).decode()


@pytest.mark.usefixtures("unplotted")
def test_mistakes_are_pictures_of_the_stored_pixels(memory: Store) -> None:
    run = make(memory, shape=(8, 6, 3), accuracy=0.8)
    given = contents(run, memory)
    html = html_report.render(given).decode()
    images = [a for t, a in Tags(html).tags if t == "img"]
    assert len(images) == MOST_SHOWN
    worst = given.analysis.worst[0]
    assert f"<b>{worst.label}</b> {worst.chance:.3f}<br> predicted" in html
    by_source = dict(zip(run.holdout.sources, run.holdout.inputs, strict=True))
    for image in images:
        assert np.array_equal(decoded(str(image["src"])), by_source[str(image["alt"])])


def decoded(uri: str) -> Any:
    """The picture in a data URI, uint8 H x W x C."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert (image.format, image.mode) in (("PNG", "L"), ("PNG", "RGB"))
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def test_large_pictures_do_not_make_a_large_file(memory: Store) -> None:
    html = page(make(memory, shape=(600, 450, 3), accuracy=0.8, examples=150), memory)
    first = decoded(next(str(a["src"]) for t, a in Tags(html).tags if t == "img"))
    assert first.shape == (150, 113, 3)


def test_a_grey_picture_is_grey() -> None:
    pixels = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1)
    assert np.array_equal(decoded(thumbnail.data_uri(pixels)), pixels)


def test_many_classes_are_listed_as_confusions(memory: Store) -> None:
    run = make(memory, classes=tuple(f"class {n}" for n in range(100)), examples=1500, accuracy=0.6)
    html = page(run, memory)
    assert 'class="matrix' not in html and "The most frequent confusions of 100 classes" in html
    assert len(html) < 400_000


@pytest.mark.usefixtures("unplotted")
@pytest.mark.parametrize(("count", "kind"), [(2, "matrix few"), (4, "matrix few"), (5, "matrix long")])
def test_the_headers_of_few_classes_are_not_cut(memory: Store, count: int, kind: str) -> None:
    html = page(make(memory, classes=tuple(f"negative {n}" for n in range(count))), memory)
    tables = [a for t, a in Tags(html).tags if t == "table" and "matrix" in str(a.get("class"))]
    assert [a["class"] for a in tables] == [kind]
    assert [a["style"] for a in tables] == ["--longest: 10"]  # one width for all columns


def test_a_class_without_holdout_examples_is_named(memory: Store) -> None:
    text = " ".join(Tags(page(make(memory), memory)).text.split())
    assert "9 no example in the holdout 0 – – – – 0" in text


def test_the_same_run_gives_the_same_bytes(memory: Store) -> None:
    """So that whoever writes it second would have written the same."""
    found = []
    for _ in range(2):
        store = open_store(f"memory://{uuid.uuid4().hex}")
        html = page(make(store), store)
        found.append(re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "", html))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "–"), (0.96124, "0.9612"), (1797, "1,797"), (0.0, "0.0000"), (float("nan"), "nan"), (-0.04, "−0.0400")],
)
def test_numbers(value: float | None, written: str) -> None:
    assert wording.number(value) == written


def test_long_class_names_keep_the_end_that_tells_them_apart() -> None:
    names = [wording.label(f"a rather long class name {n}") for n in (2, 13)]
    assert names == ["a rath…ss name 2", "a rath…s name 13"] and wording.label("cat") == "cat"
    assert all(len(name) == wording.LONGEST_LABEL for name in names)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("ship/wronglabel.jpg", "ship/<wbr>wronglabel.jpg"),
        ("a/b/automobile/a name that is far too long 17.jpg", "…/automobile/<wbr>a name…ng 17.jpg"),
        ("headlines.csv[500]", "<wbr>headli….csv[500]"),
        ("<b>/\u202e", "&lt;b&gt;/<wbr>\\u202e"),
    ],
)
def test_a_file_name_breaks_after_its_folder_and_keeps_its_end(source: str, shown: str) -> None:
    assert wording.file_name(source) == shown


@pytest.mark.usefixtures("unplotted")
def test_a_candidate_alone_is_not_called_a_comparison(memory: Store) -> None:
    found = Tags(page(make(memory), memory))
    assert "Candidate on the holdout" in found.text and "Candidate and champion" not in found.text
    assert {"class": "compare alone"} in [attrs for tag, attrs in found.tags if tag == "table"]


@pytest.mark.parametrize(("value", "written"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (75.2, "75 s"), (725, "12 min 5 s")])
def test_durations(value: float, written: str) -> None:
    assert wording.duration(value) == written
