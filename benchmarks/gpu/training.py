"""What training on this machine's GPU takes, with KERAS_BACKEND=jax, each beside a plain loop where there is one.

The loops are what a practitioner writes in JAX for the same Keras model: the data in device memory as uint8, one
compiled scan over the steps of an epoch. Every part runs in a process of its own: one that fails loses no other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import images, measure
from benchmarks.measure import ROOT, table

COMMAND = [sys.executable, "-c", "from cli.main import run; run()"]
CLASSES = tuple("0123456789")
WARM_UP = 2  # epochs: JAX compiles in the first one, and once more for what that returns
RESNET50 = """
import keras

def build(input, classes):
    return keras.applications.ResNet50(weights=None, input_shape=tuple(input), classes=len(classes))
"""
MODELS: dict[str, tuple[int, int, dict[str, Any]]] = {  # side of an image, batch, `model`
    "cnn": (32, 512, {"kind": "cnn"}),
    "resnet": (32, 512, {"kind": "resnet"}),
    "resnet50": (224, 128, {"function": "resnet50:build"}),
}
SECONDS = {  # that each part may take
    "cifar10": 150, "digits": 70, "resume": 100, "cnn float32": 45, "cnn bfloat16": 45,
    "resnet float32": 60, "resnet bfloat16": 60, "resnet50 bfloat16": 180,
}  # fmt: skip
Row = Sequence[object]


def leptonflow(folder: Path, *arguments: str) -> Any:
    """The document of a command on the store of this folder."""
    environment = measure.environment(LEPTONFLOW_STORE=(folder / "store").as_uri())
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 4):  # 4: the gate refused it, which is a result too
        raise SystemExit(f"leptonflow {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout)


def whole(folder: Path, pipeline: str, source: Path, quick: bool) -> list[Row]:
    """`ingest` and `retrain`, end to end."""
    text = (ROOT / "pipelines" / f"{pipeline}.yaml").read_text(encoding="utf-8")
    (folder / f"{pipeline}.yaml").write_text(re.sub(r"\bepochs: \d+", "epochs: 1", text) if quick else text)
    began = time.perf_counter()
    leptonflow(folder, "ingest", f"{pipeline}.yaml", str(source), "--json")
    ingested = time.perf_counter()
    found = leptonflow(folder, "retrain", f"{pipeline}.yaml", "--json")
    seconds, fits = time.perf_counter() - ingested, f"{found['cost']['device_seconds']:.1f} in fits"
    return [
        (f"{pipeline}: ingest, s", ingested - began, "-", "-"),
        (f"{pipeline}: retrain, s ({found['verdict']})", seconds, fits, "-"),
    ]


def resumed(folder: Path, quick: bool) -> list[Row]:
    """A retraining that is killed after its first checkpoint, and the same command again."""
    source = folder / "images"
    images.write(source, 600 if quick else 2_000)
    slow = images.pipeline("bench", folds=2, epochs=6 if quick else 200).replace(
        "training: {", "training: {checkpoint: {minutes: 0.01}, "
    )
    (folder / "bench.yaml").write_text(slow)
    leptonflow(folder, "ingest", "bench.yaml", str(source), "--json")
    with subprocess.Popen(
        [*COMMAND, "retrain", "bench.yaml", "--json"], cwd=folder, stdout=sys.stderr, start_new_session=True,
        env=measure.environment(LEPTONFLOW_STORE=(folder / "store").as_uri()),
    ) as child:  # fmt: skip
        while child.poll() is None and not list((folder / "store" / "scratch").rglob("*.npz")):
            time.sleep(0.05)  # between two looks at the same condition
        os.killpg(child.pid, signal.SIGKILL)
    saved = max((folder / "store" / "scratch").rglob("*.npz")).name.split("-")
    began = time.perf_counter()
    found = leptonflow(folder, "retrain", "bench.yaml", "--json")
    what = f"killed after epoch {int(saved[0])}, step {int(saved[1])}: again, s ({found['verdict']})"
    return [(what, time.perf_counter() - began, f"{found['cost']['device_seconds']:.1f} in fits", "-")]


def digits(folder: Path, quick: bool) -> list[Row]:
    """Five folds and a final fit of the digits."""
    source = folder / "digits"
    subprocess.run([sys.executable, ROOT / "pipelines" / "digits_images.py", source], check=True, stdout=sys.stderr)
    return whole(folder, "digits", source, quick)


def cifar10(folder: Path, source: Path | None, quick: bool) -> list[Row]:
    """CIFAR-10's images, or as many drawn ones of its size and classes."""
    if source is None:
        source = folder / "images"
        images.write(source, 600 if quick else 10_000)
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        for drawn, name in zip(images.CLASSES, names, strict=True):
            (source / drawn).rename(source / name)
    return whole(folder, "cifar10", source, quick)


def ours(config: Any, models: Any, pixels: Any, labels: Any) -> Callable[[], float]:
    """Seconds of an epoch of a fit, as a run trains."""
    import numpy as np

    from leptonflow.training import epochs
    from leptonflow.training.workspace import MODEL_LOCK
    from leptonflow.workloads import catalog

    everything = np.arange(len(labels))
    nothing = everything[:0]
    of = epochs.Material(pixels, labels, CLASSES, everything, nothing, nothing, [""] * len(labels))

    def run() -> float:
        with MODEL_LOCK:
            found = epochs.run(
                models, of, catalog.load(config.workload), config, 0, "bench", 1, lambda epoch, values: None
            )
        return found.values[0].seconds

    return run


def plain(model: Any, batch: int, pixels: Any, labels: Any) -> Callable[[], float]:
    """The same of a loop by hand: Adam and cross-entropy, a scan over the steps, shuffled."""
    import jax
    import keras
    import numpy as np

    x, y = jax.device_put(pixels), jax.device_put(keras.utils.to_categorical(labels, len(CLASSES)))
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.CategoricalCrossentropy()
    state = tuple(
        [jax.numpy.array(each.value) for each in group]
        for group in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    )

    def step(state: Any, batch: Any) -> Any:
        def loss(weights: Any, rest: Any) -> Any:
            found, rest = model.stateless_call(weights, rest, x[batch], training=True)
            return loss_of(y[batch], found), rest

        weights, rest, of_optimizer = state
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest)
        weights, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, weights)
        return (weights, rest, of_optimizer), value

    epoch = jax.jit(lambda state, order: jax.lax.scan(step, state, order), donate_argnums=0)
    random = np.random.default_rng(0)

    def run() -> float:
        nonlocal state
        began = time.perf_counter()
        order = random.permutation(len(labels))[: len(labels) // batch * batch].reshape(-1, batch)
        state, losses = epoch(state, order)
        losses.block_until_ready()
        return time.perf_counter() - began

    return run


def beside(folder: Path, name: str, precision: str, quick: bool) -> list[Row]:
    """Images a second of a model, in a fit and in the loop by hand, in turns."""
    import numpy as np

    from leptonflow.core import pipeline_files
    from leptonflow.training import epochs
    from leptonflow.training.workspace import MODEL_LOCK, Workspace
    from leptonflow.workloads import catalog

    side, batch, model = MODELS[name]
    if quick:
        side, batch = min(side, 64), 16
    (folder / "resnet50.py").write_text(RESNET50)
    (folder / "bench.yaml").write_text(
        json.dumps({
            "name": "bench", "workload": "image_classification", "input": [side, side, 3], "model": model,
            "training": {"epochs": 1, "batch_size": batch, "precision": precision},
            "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.05}],
        })
    )  # fmt: skip
    config = pipeline_files.load_config(folder / "bench.yaml")
    count = batch * (2 if quick else 16 if side > 32 else 80)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, side, side, 3), np.uint8)
    labels = random.integers(0, len(CLASSES), count)
    workload = catalog.load(config.workload)
    with MODEL_LOCK:
        made = [Workspace().models(workload, config, CLASSES, 0, epochs.steps(config, count)) for _ in range(2)]
    sides = (ours(config, made[0], pixels, labels), plain(made[1].learner, batch, pixels, labels))
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + (1 if quick else 5)):
        for seconds, each in zip(taken, sides, strict=True):
            spent = each()
            if number >= WARM_UP:
                seconds.append(spent)
    mine, theirs = (count / statistics.median(seconds) for seconds in taken)
    return [(f"{name} at {side} x {side}, batches of {batch}, {precision}: images/s", mine, theirs, mine / theirs)]


def part(name: str, given: argparse.Namespace) -> list[Row]:
    with measure.workspace() as folder:
        if name == "digits":
            return digits(folder, given.quick)
        if name == "resume":
            return resumed(folder, given.quick)
        if name == "cifar10":
            return cifar10(folder, given.images, given.quick)
        model, precision = name.split()
        return beside(folder, model, precision, given.quick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="a folder of CIFAR-10's images for each class")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that it runs, not how fast")
    parser.add_argument("--part", choices=SECONDS, help="this one alone; prints its rows as JSON")
    given = parser.parse_args()
    given.images = given.images and given.images.resolve()
    if given.part:
        print(json.dumps(part(given.part, given)))
        return
    found: list[Row] = []
    for name, seconds in SECONDS.items():
        command = [sys.executable, "-m", "benchmarks.gpu.training", "--part", name, *sys.argv[1:]]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds, check=True)
            found += json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            found.append((f"{name}: failed", str(error)[-60:], "-", "-"))
        print(f"{name} done", file=sys.stderr, flush=True)
    import jax

    kinds = ", ".join(sorted({each.device_kind for each in jax.devices()}))
    title = f"{kinds}, JAX {jax.__version__}, {datetime.now(UTC):%d %B %Y}"
    table(title, ["", "leptonflow", "beside it", "ratio"], found)
    if any("failed" in str(row[0]) for row in found):
        raise SystemExit("a part failed")


if __name__ == "__main__":
    main()
