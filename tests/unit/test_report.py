"""The report: one file that opens offline, tells the verdict first and trusts no name from outside."""

from __future__ import annotations

import base64
import re
import struct
import uuid
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from leptonflow import recording, report
from leptonflow.store import Store, open_store
from tests.run_examples import HOSTILE, make


def page(run: Any, store: Store, **changed: Any) -> str:
    """The report that `record` leaves for this run."""
    recording.record(store, run.config, run.plan, **run.keywords(**changed))
    return store.get(f"runs/{run.config.name}/{run.verdict.run_id}/report.html").decode()


@pytest.fixture
def memory() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


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


def test_the_verdict_comes_first_and_every_rule_has_its_numbers(memory: Store) -> None:
    run = make(memory, promoted=False, accuracy=0.7)
    text = Tags(page(run, memory).split("<body>")[1]).text
    flat = " ".join(text.split())
    assert flat.startswith(f"digits refused {run.verdict.sentence}")
    for rule in run.verdict.rules:
        assert rule.sentence in flat
    assert "✗ failed" in flat and "✓ passed" in flat and "not applicable" in flat
    assert f"{run.verdict.rules[0].value:.4f} 0.9000" in flat


@pytest.mark.parametrize("classes", [("a", HOSTILE, "名前"), tuple(f"{HOSTILE}{n}" for n in range(40))])
def test_names_from_outside_are_text(memory: Store, classes: tuple[str, ...]) -> None:
    """A class, a file and a sentence may say anything: they stay text, and cannot reorder what stands beside them."""
    run = make(memory, classes=classes, sources=HOSTILE + "/{n}.png", accuracy=0.5)
    verdict = run.verdict.model_copy(update={"sentence": HOSTILE})
    html = page(run, memory, verdict=verdict)
    found = Tags(html)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "<script>alert(1)</script>\\u202e$x^2$\\n&amp;" in found.text
    assert "\u202e" not in html


def test_mistakes_are_pictures_of_the_stored_pixels(memory: Store) -> None:
    run = make(memory, shape=(8, 6, 3), accuracy=0.8)
    html = page(run, memory)
    images = [a for t, a in Tags(html).tags if t == "img"]
    assert len(images) == report.MOST_MISTAKES
    by_source = dict(zip(run.holdout.sources, run.holdout.pixels, strict=True))
    for image in images:
        assert np.array_equal(decoded(str(image["src"])), by_source[str(image["alt"])])


def decoded(uri: str) -> Any:
    """A PNG of ours back to pixels, by the file format's own rules."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    start = data.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompressobj().decompress(data[start:]), np.uint8).reshape(height, 1 + width * channels)
    return rows[:, 1:].reshape(height, width, channels)


def test_large_pictures_do_not_make_a_large_file(memory: Store) -> None:
    html = page(make(memory, shape=(600, 450, 3), accuracy=0.8, examples=150), memory)
    first = decoded(next(str(a["src"]) for t, a in Tags(html).tags if t == "img"))
    assert first.shape == (150, 113, 3)


def test_grey_pictures_and_pillow_agree() -> None:
    import io

    from PIL import Image

    pixels = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1)
    uri = report.png(pixels)
    opened = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert opened.mode == "L" and np.array_equal(np.asarray(opened), pixels[..., 0])


def test_many_classes_are_listed_as_confusions(memory: Store) -> None:
    run = make(memory, classes=tuple(f"class {n}" for n in range(100)), examples=1500, accuracy=0.6)
    html = page(run, memory)
    assert 'class="matrix' not in html and "The most frequent confusions of 100 classes" in html
    assert len(html) < 400_000


def test_a_class_without_holdout_examples_is_named(memory: Store) -> None:
    text = " ".join(Tags(page(make(memory), memory)).text.split())
    assert "9 no example in the holdout – – –" in text


def test_the_same_run_gives_the_same_bytes(memory: Store) -> None:
    """So that whoever writes it second would have written the same."""
    found = []
    for _ in range(2):
        store = open_store(f"memory://{uuid.uuid4().hex}")
        html = page(make(store), store)
        found.append(re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "", html))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("value", "written"), [(None, "–"), (0.96124, "0.9612"), (1797, "1,797"), (0.0, "0.0000"), (float("nan"), "nan")]
)
def test_numbers(value: float | None, written: str) -> None:
    assert report.number(value) == written


@pytest.mark.parametrize(("value", "written"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (75.2, "75 s"), (725, "12 min 5 s")])
def test_durations(value: float, written: str) -> None:
    assert report.duration(value) == written
