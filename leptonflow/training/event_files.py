"""`training.tensorboard`: the learning curve of each fit as an event file, which `tensorboard --logdir` reads.

Keras's callback is not used: it needs the package tensorboard on the machine that trains, and is told nothing of the
fold. The values are those of the table `epochs`. What does not belong here: what is measured (epochs).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.config import Pipeline
from schemas.errors import ConfigurationError

FOLDER = Path(".leptonflow", "tensorboard")  # below the working folder
Tell = Callable[[int, Mapping[str, float]], None]  # an epoch, from 1, and its values by their names


@contextmanager
def opened(config: Pipeline, version: str, fold: int | None) -> Iterator[Tell]:
    """A function that writes the values of an epoch, where `training.tensorboard` is true: else it does nothing.

    Raises ConfigurationError where TensorFlow is not installed, or the folder cannot be written.
    """
    if not config.training.tensorboard:
        yield lambda epoch, values: None
        return
    folder = FOLDER / config.name / version / ("final" if fold is None else f"fold-{fold}")
    try:
        import tensorflow as tf

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        path.touch()
    except (ImportError, OSError) as error:
        raise ConfigurationError(
            "training.tensorboard is true, and its files cannot be written",
            expected=f"TensorFlow, which writes them, and a folder {FOLDER} that this user may write to",
            received=str(error),
            hint="Remove training.tensorboard, or run the command where they are",
        ) from None

    def event(**given: Any) -> bytes:
        made: bytes = tf.compat.v1.Event(wall_time=time.time(), **given).SerializeToString()
        return made

    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(event(file_version="brain.Event:2"))

        def tell(epoch: int, values: Mapping[str, float]) -> None:
            named = [tf.compat.v1.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            file.write(event(step=epoch, summary=tf.compat.v1.Summary(value=named)))
            file.flush()

        yield tell
