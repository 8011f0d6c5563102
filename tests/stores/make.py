"""Makes the store that a release leaves among the tests: `python make.py NAME` writes NAME.tar.gz beside itself.

Run it once, with the release's own code. It holds what a store of real use holds: accepted, quarantined and
refused batches (files and arrays), the same pictures in several image modes and under two labels, a champion,
a refused candidate, a later champion, a rollback.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
PIPELINE = """\
name: pets
workload: image_classification
classes: [cat, dog]
input: [16, 16, 3]
model: {filters: [4, 4], dense: 8}
training: {epochs: 1, folds: 2}
gate:
  - {rule: at_least, metric: accuracy, on: cv, value: BOUND}
"""


def main(name: str) -> None:
    """Makes the sources, runs the commands and packs the folder."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / name
        root.mkdir()
        os.chdir(root)
        Path("pets.yaml").write_text(PIPELINE.replace("BOUND", "0.0"))
        Path("strict.yaml").write_text(PIPELINE.replace("BOUND", "1.01"))
        first_batch(Path("first"))
        arrays(Path("second"))
        later(Path("third"))
        refused(Path("bad"))
        run("ingest", "pets.yaml", "first", "--batch", "first")
        run("retrain", "pets.yaml")
        run("ingest", "pets.yaml", "second", "--batch", "second")
        run("retrain", "pets.yaml")
        run("rollback", "pets.yaml", "--reason", "an example of one")
        run("ingest", "pets.yaml", "bad", "--batch", "bad", status=3)
        run("ingest", "pets.yaml", "third", "--batch", "third")
        run("retrain", "strict.yaml", status=4)
        run("retrain", "pets.yaml", "--force")
        Path("strict.yaml").unlink()
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            for kept in ("pets.yaml", "first", "third", "store"):
                archive.add(kept, filter=plain)


def run(*arguments: str, status: int = 0) -> None:
    command = Path(sys.executable).with_name("leptonflow")
    environment = {**os.environ, "LEPTONFLOW_STORE": f"file://{os.getcwd()}/store", "USER": "maker", "LOGNAME": "maker"}
    done = subprocess.run([command, *arguments], env=environment, check=False)
    assert done.returncode == status, (arguments, done.returncode)


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nothing of the machine: no owner, no lock, no server's database."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if any(part in member.name for part in (".locks", "prefect", "logs")) else member


def drawing(seed: int, cat: bool) -> Image.Image:
    """A grey 16 x 16 picture of one of two kinds."""
    noise = np.random.default_rng(seed).integers(0, 120, (16, 16))
    return Image.fromarray((noise + (0 if cat else 100)).astype(np.uint8))


def first_batch(folder: Path) -> None:
    """Sixteen pictures a class, some in three image modes, one under both labels, one file that is no image."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i in range(16):
            grey = drawing(2 * i + (label == "dog"), label == "cat")
            modes = ("L", "RGB", "RGBA") if i % 2 else ("L",)
            for mode in modes:
                grey.convert(mode).save(folder / label / f"{i:02d}_{mode}.png")
        colour = np.random.default_rng(500 + len(label)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        colour[..., 0] //= 2 if label == "cat" else 1
        Image.fromarray(colour).save(folder / label / "colour.png")
        Image.fromarray(colour).convert("RGBA").save(folder / label / "colour_opaque.png")
        wide = np.asarray(drawing(2 + (label == "dog"), label == "cat")).astype(np.uint16) * 257
        Image.fromarray(wide).save(folder / label / "wide.png")
    for seed in (900, 902, 904):
        drawing(seed, True).save(folder / "cat" / f"two_{seed}.png")
        drawing(seed, True).convert("RGB").save(folder / "dog" / f"two_{seed}.png")
    (folder / "dog" / "broken.png").write_bytes(b"no image")


def arrays(folder: Path) -> None:
    """Rows of which some are pictures of the first batch, as grey and as colour."""
    folder.mkdir()
    rows, labels = [], []
    for i in range(12):
        grey = np.asarray(drawing(100 + i if i % 3 else i, i % 2 == 0))
        rows.append(np.repeat(grey[..., None], 3, axis=2))
        labels.append(i % 2)
    np.save(folder / "grey_data.npy", np.stack(rows))
    np.save(folder / "grey_labels.npy", np.array(labels))


def later(folder: Path) -> None:
    """A few new pictures, one that is known, one under the other label, one of a label that is no class."""
    for label in ("cat", "dog", "fox"):
        (folder / label).mkdir(parents=True)
    for i in range(8):
        drawing(300 + i, i % 2 == 0).save(folder / ("cat" if i % 2 == 0 else "dog") / f"new_{i}.png")
    drawing(0, True).save(folder / "cat" / "again.png")
    drawing(2, True).save(folder / "dog" / "wrong.png")
    drawing(400, True).save(folder / "fox" / "fox.png")


def refused(folder: Path) -> None:
    """More broken files than the limit allows."""
    (folder / "cat").mkdir(parents=True)
    for i in range(4):
        (folder / "cat" / f"{i}.png").write_bytes(b"no image %d" % i)
    drawing(600, True).save(folder / "cat" / "good.png")


if __name__ == "__main__":
    main(sys.argv[1])
