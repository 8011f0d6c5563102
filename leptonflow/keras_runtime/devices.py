"""The devices that Keras's backend has found: their names and their memory."""

from __future__ import annotations

from leptonflow.keras_runtime import keras_models


def first() -> tuple[str, int | None]:
    """(the backend's own name of the device that trains, its peak of memory in bytes): None where it does not tell."""
    module = keras_models.keras()
    try:
        named = sorted(str(each) for each in module.distribution.list_devices())
    except (AttributeError, NotImplementedError):  # a backend that lists none (PyTorch)
        return "unknown", None
    accelerators = [name for name in named if not name.startswith("cpu")]
    if not accelerators:
        return "cpu", None
    if module.backend.backend() == "tensorflow":
        import tensorflow as tf

        return accelerators[0], int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    if module.backend.backend() == "jax":
        import jax

        return accelerators[0], (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return accelerators[0], None
