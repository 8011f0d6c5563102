"""The devices that Keras's backend has found: which of them a fit computes on, their names and their memory.

What does not belong here: which GPUs the machine has, whatever the backend sees (core.accelerators).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from leptonflow.core import accelerators, progress
from leptonflow.core.code_digests import backend
from leptonflow.keras_runtime import keras_models
from schemas.errors import ConfigurationError
from schemas.text import counted
from schemas.training import Training


class Used(NamedTuple):
    """name: the backend's own of each; peak: of the first one's memory, in bytes, None where it is not told."""

    name: str
    number: int
    peak: int | None


def used() -> Used:
    """What computes a fit that is begun here."""
    module = keras_models.keras()
    named = _listed()
    if named is None:
        return Used("unknown", 1, None)
    spread = module.distribution.distribution()
    several = [] if spread is None else [str(each) for each in spread.device_mesh.devices.flat]
    accelerated = _accelerators(named)
    name = ", ".join(several) or (accelerated[0] if accelerated else "cpu")
    return Used(name, max(1, len(several)), _peak() if accelerated else None)


def _listed() -> list[str] | None:
    """The devices of the backend's default kind, such as gpu:0, gpu:1; None from one that lists none (PyTorch)."""
    try:
        found = [str(each) for each in keras_models.keras().distribution.list_devices()]
    except (AttributeError, NotImplementedError):
        return None
    return sorted(found, key=lambda name: (len(name), name))


def _accelerators(named: Sequence[str]) -> list[str]:
    return [name for name in named if not name.startswith("cpu")]


def _peak() -> int | None:
    if backend() == "tensorflow":
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    if backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None


@contextmanager
def chosen(training: Training) -> Iterator[None]:
    """In this block models are built, trained and asked on the devices of `training.devices`.

    Raises ConfigurationError where there are fewer, and where a number of them is wanted and the backend sees the CPU
    alone, unless the environment says that the CPU is meant.
    """
    wanted = training.devices
    if wanted == "auto":
        yield
        return
    accelerators.check(training)
    named = _listed()
    if named is None or not (_accelerators(named) or accelerators.cpu_is_meant()):
        raise _no_accelerator(wanted)
    usable = _accelerators(named) or named
    if wanted > len(usable):
        flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={wanted}"
        cpu = f", or start with {flag}" if backend() == "jax" and not _accelerators(named) else ""
        raise ConfigurationError(
            f"training.devices is {wanted}, and {backend()} sees {counted(len(usable), 'device')}",
            expected=f"at most {len(usable)}: {', '.join(usable)}",
            received=str(wanted),
            hint=f"Change training.devices{cpu}",
        )
    if wanted == 1:  # the first, as always
        yield
        return
    with _data_parallel(usable[:wanted]).scope():
        yield


def _no_accelerator(wanted: int) -> ConfigurationError:
    found, lacks = accelerators.gpus(), accelerators.missing()
    return ConfigurationError(
        f"training.devices asks for {counted(wanted, 'accelerator')}, and {backend()} sees none",
        expected="a GPU that the backend sees",
        received=f"{', '.join(found)}; {lacks.told()}" if found else "the CPU alone",
        hint=(f"{lacks.command}; `leptonflow doctor` says what is missing. " if found else "")
        + "devices: auto trains on whatever there is, CUDA_VISIBLE_DEVICES=-1 says that the CPU is meant",
    )


def tell_of_unused(training: Training) -> None:
    """Say in one line that the CPU trains although the machine has a GPU, where nobody chose it."""
    named = _listed()
    if training.devices != "auto" or named is None or _accelerators(named) or accelerators.cpu_is_meant():
        return
    found = accelerators.gpus()
    if found:
        lacks = accelerators.missing()
        progress.note(
            f"training runs on the CPU, and not on {', '.join(found)}: {backend()} sees no GPU ({lacks.told()}); "
            f"{lacks.command}, or CUDA_VISIBLE_DEVICES=-1 if the CPU is meant; `leptonflow doctor` says more"
        )


def _data_parallel(names: Sequence[str]) -> Any:
    """Each device takes an equal share of every batch; one that cannot be shared equally is computed by each in full.

    So the last batch of an epoch is neither padded nor cut, and statistics and losses are those of one device.
    """
    layout = keras_models.keras().distribution.TensorLayout

    class Shares(keras_models.keras().distribution.DataParallel):  # type: ignore[misc]
        """Keras's own, which refuses such a batch."""

        def get_data_layout(self, data_shape: Sequence[int]) -> Any:
            if data_shape and data_shape[0] % len(names) == 0:
                return super().get_data_layout(data_shape)
            return layout([None] * len(data_shape), self.device_mesh)

    return Shares(devices=list(names))
