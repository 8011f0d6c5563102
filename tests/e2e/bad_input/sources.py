"""What is brought: folders, arrays and tables, and in them the bad, the odd and the hostile.

What does not belong here: what a command should say of them.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.e2e.helpers import good, ingest, picture, pipeline, rows

CLASSES = ["cat", "dog"]


def bomb(path: Path, side: int) -> None:
    """A PNG whose header says side x side pixels: a few bytes that would decode to side * side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def files(store: Path, batch: str, name: str = "small") -> list[str]:
    """What was landed of a batch, the markers apart."""
    folder = store / "landing" / name / batch
    found = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    return sorted(set(found) - {"_READY", "_INGEST"})


# --- folders -----------------------------------------------------------------------------------------


def bad_images(folder: Path) -> dict[str, str]:
    """Bad files in a folder of class folders; the rule of each."""
    (folder / "cat" / "empty.png").write_bytes(b"")
    picture(900, (64, 64), "RGB").save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "notes.jpg").write_text("not a picture at all\n")
    picture(901, (1, 1)).save(folder / "cat" / "one.png")
    bomb(folder / "cat" / "bomb.png", 20000)
    (folder / "bird").mkdir()
    picture(902).save(folder / "bird" / "tweety.png")
    picture(903).save(folder / "stray.png")
    shutil.copy(folder / "cat" / "00000.png", folder / "cat" / "again.png")
    picture(904).save(folder / "cat" / "both.png")
    shutil.copy(folder / "cat" / "both.png", folder / "dog" / "both.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    return {
        "cat/empty.png": "empty-file",
        "cat/truncated.jpg": "unreadable-image",
        "cat/notes.jpg": "unreadable-image",
        "cat/one.png": "too-small",
        "cat/bomb.png": "too-large",
        "bird/tweety.png": "unknown-label",
        "stray.png": "unknown-label",
        "cat/again.png": "duplicate",
        "cat/both.png": "conflicting-label",
        "dog/both.png": "conflicting-label",
        "dog/pipe.png": "not-a-file",
    }


def odd_images(folder: Path) -> list[str]:
    """Images that are converted, not refused."""
    picture(910, mode="RGB").convert("CMYK").save(folder / "cat" / "cmyk.jpg")
    deep = np.random.default_rng(911).integers(0, 65536, (8, 8)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "cat" / "sixteen.png")
    picture(912, mode="RGB").quantize(16).save(folder / "cat" / "palette.png")
    picture(913, mode="RGBA").save(folder / "cat" / "alpha.png")
    frames = [picture(n, mode="RGB") for n in (914, 915)]
    frames[0].save(folder / "cat" / "animated.gif", save_all=True, append_images=frames[1:])
    names = ["cmyk.jpg", "sixteen.png", "palette.png", "alpha.png", "animated.gif"]
    for suffix, number in (("bmp", 916), ("webp", 917), ("tiff", 918)):
        picture(number, mode="RGB").save(folder / "cat" / f"format.{suffix}")
        names.append(f"format.{suffix}")
    return [f"cat/{name}" for name in names]


HOSTILE = {
    b"with space.png": "with space.png",
    "\u00fcn\u00ef \u732b \U0001f408.png".encode(): "\u00fcn\u00ef \u732b \U0001f408.png",
    b"photo#1.png": "photo#1.png",
    b"new\nline.png": "new\nline.png",
    b"\xff\xfe.png": "\\xff\\xfe.png",
    b"%41.png": "%41.png",
    b"-rf.png": "-rf.png",
    b"a?b*c[d].png": "a?b*c[d].png",
    b"quote'\"`.png": "quote'\"`.png",
    b"back\\slash.png": "back\\slash.png",
    b"\x1b[31mred\x07.png": "\x1b[31mred\x07.png",
    b"l" * 240 + b".png": "l" * 240 + ".png",
}


def hostile_names(folder: Path, first: int = 930) -> list[str]:
    """Good pictures under hostile names; the names as they are recorded."""
    for number, name in enumerate(HOSTILE, first):
        picture(number).save(folder / "dog" / "plain.png")
        os.rename(os.fsencode(folder / "dog" / "plain.png"), os.path.join(os.fsencode(folder), b"dog", name))
    return [f"dog/{name}" for name in HOSTILE.values()]


def another_input(folder: Path, store: Path, examples: int) -> None:
    """With another input size, what was accepted is encoded again, each file found under its hostile name."""
    lenient = pipeline(folder / "lenient", classes=CLASSES, quarantine={"limit": 1.0}, input=[6, 6, 1])
    good(folder / "more", CLASSES, 1, first=980)
    document, _ = ingest(lenient, folder / "more", "--batch", "more", "--store", store)
    assert document["accepted"] == 2
    found = rows(store, "select kind, examples from snapshots order by number")[-2:]
    assert [(row["kind"], row["examples"]) for row in found] == [("preprocessing", examples), ("batch", examples + 2)]


# --- .npy --------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(5).integers(0, 256, (10, 8, 8), np.uint8)
LABELS = np.arange(10) % 2


def pair(folder: Path, values: Any, labels: Any, **how: Any) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "train_data.npy", values, **how)
    np.save(folder / "train_labels.npy", labels, **how)
    return folder


# --- tables ------------------------------------------------------------------------------------------

GOOD_ROWS = [(f"images/{n}.png", CLASSES[n % 2]) for n in range(10)]


def table(folder: Path, lines: list[tuple[Any, ...]], header: tuple[str, ...] = ("path", "label")) -> Path:
    """A CSV beside ten good pictures."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(10):
        picture(300 + number).save(folder / "images" / f"{number}.png")
    text = "\n".join(",".join(str(cell) for cell in line) for line in (header, *lines)) + "\n"
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"
