"""Many training steps in one call of TensorFlow: Keras's own `train_step` in a loop of the graph.

Keras's `steps_per_execution` gives the values of the last step alone, and they would be means over all before it.
`jax_steps` has the same functions.
"""

from __future__ import annotations

from typing import Any

from leptonflow.keras_runtime.step_batches import Batches, Values, values


def resident(encoded: Any) -> Any:
    """None: batches are gathered in memory, and handed over with each call."""
    return None


def compiled(trainer: Any) -> Any:
    """A function that trains on some batches, at most `room`, and gives the values of loss and metrics of each.

    What it computes is what `train_on_batch` does, bit for bit on a CPU.
    """
    import tensorflow as tf

    names: list[str] = []

    def step(given: Any, target: Any, weights: Any) -> Any:
        trainer.reset_metrics()
        logs = values(trainer.train_step((given, target, weights)))
        names[:] = logs  # at the time of tracing
        return tf.stack([tf.cast(tf.reshape(value, ()), tf.float32) for value in logs.values()])

    one = tf.function(step, jit_compile=True, autograph=False) if trainer.jit_compile else step

    def loop(given: dict[str, Any]) -> Any:
        of, count = Batches(**given), tf.shape(given["indices"])[0]

        def body(number: Any, found: Any) -> Any:
            examples = tf.gather(of.examples, of.indices[number])
            inputs = examples if of.shares is None else [examples, of.shares[number]]
            weights = None if of.weights is None else of.weights[number]
            return number + 1, found.write(number, one(inputs, of.targets[number], weights))

        begun = [tf.constant(0), tf.TensorArray(tf.float32, size=count)]
        _, found = tf.while_loop(lambda number, _: number < count, body, begun, parallel_iterations=1)
        return found.stack()

    traced: dict[int, Any] = {}  # by the size of the batches, whatever their number

    def run(of: Batches, room: int) -> Values:
        given = {name: tf.convert_to_tensor(each) for name, each in of._asdict().items() if each is not None}
        size = of.indices.shape[1]
        if size not in traced:
            kinds = {name: tf.TensorSpec([None, *each.shape[1:]], each.dtype) for name, each in given.items()}
            traced[size] = tf.function(loop, input_signature=[kinds], autograph=False)
        found = traced[size](given).numpy()
        return {name: found[:, column] for column, name in enumerate(names)}

    return run
