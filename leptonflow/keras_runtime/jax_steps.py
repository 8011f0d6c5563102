"""Many training steps in one call of JAX: Keras's own stateless `train_step` in a loop that XLA compiles.

Keras's `steps_per_execution` is a loop in Python here. `tensorflow_steps` has the same functions.
"""

from __future__ import annotations

from typing import Any

from leptonflow.keras_runtime.step_batches import Batches, Values, values

DEVICE_SHARE = 0.5  # of the free memory of a device that the training examples may take: the rest is the steps'


def resident(encoded: Any) -> Any:
    """The examples in the memory of the accelerator; None where there is none, or they are too many for it."""
    import jax

    device = jax.devices()[0]
    memory = device.memory_stats() or {}
    free = memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0)
    if device.platform == "cpu" or encoded.nbytes > DEVICE_SHARE * free:
        return None
    return jax.device_put(encoded, device)


def compiled(trainer: Any, looped: bool | None = None) -> Any:
    """A function that trains on some batches, at most `room`, and gives the values of loss and metrics of each.

    looped: whether XLA has the loop. By default on accelerators alone: a convolution in a loop of XLA takes a CPU
    four times as long, and so the steps follow one another there, with no way through Keras between them.
    """
    import jax

    def step(state: Any, fresh: Any, batch: Any) -> Any:
        logs, (*after, _) = trainer.train_step((*state, fresh), batch)
        return tuple(after), values(logs)

    def loop(state: Any, fresh: Any, of: Batches, count: Any) -> Any:
        def body(number: Any, carried: Any) -> Any:
            state, found = carried
            state, logs = step(state, fresh, of.batch(number))
            return state, {name: found[name].at[number].set(value) for name, value in logs.items()}

        shapes = jax.eval_shape(step, state, fresh, of.batch(0))[1]
        found = {name: jax.numpy.zeros((len(of.indices), *one.shape), one.dtype) for name, one in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, found))

    if looped is None:
        looped = jax.devices()[0].platform != "cpu"
    traced = jax.jit(loop if looped else step, donate_argnums=0)

    def run(of: Batches, room: int) -> Values:
        count = len(of.indices)
        trainer.reset_metrics()
        variables = (trainer.trainable_variables, trainer.non_trainable_variables, trainer.optimizer.variables)
        state = tuple([each.value for each in some] for some in variables)
        fresh = [each.value for each in trainer.metrics_variables]
        if looped:
            state, found = traced(state, fresh, _padded(of, room), count)
        else:
            logs = []
            for number in range(count):
                state, one = traced(state, fresh, of.batch(number))
                logs.append(one)
            found = {name: jax.numpy.stack([one[name] for one in logs]) for name in logs[0]}
        for some, after in zip(variables, state, strict=True):
            for each, value in zip(some, after, strict=True):
                each.assign(value)
        return {name: jax.device_get(value)[:count].reshape(count) for name, value in found.items()}

    return run


def _padded(of: Batches, room: int) -> Batches:
    """The same with arrays that have room for so many batches, whatever their number: all are of one shape."""
    import jax
    import numpy as np

    def padded(rows: Any, length: int) -> Any:
        if rows is None or isinstance(rows, jax.Array):  # what lies on the device is all examples
            return rows
        return np.concatenate([rows, np.zeros((length - len(rows), *rows.shape[1:]), rows.dtype)])

    examples = padded(of.examples, room * of.indices.shape[1])
    return Batches(examples, *(padded(each, room) for each in of[1:]))
