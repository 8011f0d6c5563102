"""What the fits of one plan share: the training examples, and one model, reset to a seed and checked to be loadable.

Tracing a model costs more than building one. What is trained with it does not belong here (model_fits).
"""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from leptonflow.core import accelerators, progress
from leptonflow.data.dataset import example_sets, holdout_split
from leptonflow.data.dataset.example_sets import Examples
from leptonflow.keras_runtime import devices, optimizers
from leptonflow.keras_runtime.keras_models import (
    _first_line,
    _own_chance,
    in_bfloat16,
    jit,
    keras,
    load,
    save,
    seed_all,
    uncompiled,
)
from leptonflow.keras_runtime.train_steps import TrainSteps
from leptonflow.storage.store import Store
from leptonflow.training import augmentation, starting_weights
from leptonflow.training.starting_weights import Weights
from leptonflow.workloads import user_model
from leptonflow.workloads.base import Workload
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, LeptonflowError, TrainingError
from schemas.records import Plan, SnapshotRef

MODEL_LOCK = threading.RLock()  # Keras keeps seeds and graphs for the whole process: one fit at a time


class Models(NamedTuple):
    """One network, as it is trained and as it is evaluated and saved.

    trainer  compiled: what is trained
    learner  the network in the trainer, which is the trainer itself where nothing is put before it
    model    what is evaluated and saved: the learner itself, where its weights are those that are evaluated
    steps    trains the trainer
    """

    trainer: Any
    learner: Any
    model: Any
    steps: TrainSteps

    def settled(self) -> Any:
        """`model` with the weights as training has left them, averaged where the optimiser averages them."""
        if self.model is not self.learner:
            copy_variables(self.learner.variables, self.model.variables)
            own = {id(old): new for old, new in zip(self.learner.variables, self.model.variables, strict=True)}
            # A callback may have changed which of them are trained, or compiled again since the last step.
            trained = [own[id(variable)] for variable in self.learner.trainable_variables]
            if self.trainer.optimizer.built:
                self.trainer.optimizer.finalize_variable_values(trained)
            copy_variables(self.model.variables, self.model.variables)  # Keras has assigned the averages themselves
        return self.model


class Workspace:
    """Made once for all stages of one plan in a process, to save time alone.

    A fit with a workspace of its own, in whatever process, has the same result.
    """

    def __init__(self) -> None:
        self._examples: Examples | None = None
        self._models: Models | None = None
        self._steps = 0
        self._own: dict[str, str] | None = None
        self._start: Weights | None = None
        self._train_steps = TrainSteps()

    def examples(self, store: Store, config: Pipeline, snapshot: SnapshotRef) -> Examples:
        """The plan's training set, read once."""
        if self._examples is None:
            progress.once(holdout_split.example_place(config, snapshot).told)
            self._examples = example_sets.training_set(store, config, snapshot)
        return self._examples

    def for_other_values(self) -> Workspace:
        """For a plan on the same snapshot with other values: of this one it has the examples, and the user's files."""
        other = Workspace()
        other._examples, other._own = self._examples, self._own
        return other

    def check_own_files(self, config: Pipeline) -> None:
        """Raises ConfigurationError where the user's code or files are others than at the first call."""
        found = user_model.contents(config)
        before = self._own = found if self._own is None else self._own
        if before != found:
            changed = sorted(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))
            raise ConfigurationError(
                f"{', '.join(changed)} changed while the run was under way",
                expected="the code and the files of the model as they were when it began",
                received="others",
                hint="Run the same command again: it trains the model that they make now",
            )

    def start(self, store: Store, workload: Workload, config: Pipeline, plan: Plan) -> Weights | None:
        """What the plan's final fit starts with; None: from scratch. Said once. Hold MODEL_LOCK.

        Raises ConfigurationError where nothing of it fits the model.
        """
        if self._start is None and plan.start is not None and plan.snapshot is not None:
            classes = plan.snapshot.classes
            self._start = starting_weights.matched(
                store, config, plan.start, untrained(workload, config, classes), classes
            )
            for line in starting_weights.sentences(self._start.started, plan.start.name):
                progress.note(line)
        return self._start

    def models(
        self,
        workload: Workload,
        config: Pipeline,
        classes: Sequence[str],
        seed: int,
        steps: int,
        start: Weights | None = None,
    ) -> Models:
        """The plan's one network, as new: as `seed` alone makes it, for a fit of so many steps. Hold MODEL_LOCK.

        start: the weights that it has then.

        Tracing a model costs more than building one. So the first one is kept, and for each later fit
        every variable of a new one is copied into it: weights, moving statistics, the states of random
        layers, and the optimiser's moments, step count and learning rate. A schedule of learning rates is
        traced with its number of steps: another number is another model. So is one that the user's callbacks may
        have changed in other ways.
        Raises as `check_loadable`, and ConfigurationError where two calls of model.function share weights.
        """
        self.check_own_files(config)
        checked = None
        if self._models is None:
            devices.tell_of_unused(config.training)
            checked = check_loadable(workload, config, classes)
        fresh = _fresh(workload, config, classes, seed, steps, start)._replace(steps=self._train_steps)
        if checked is not None:
            _check_new(fresh.model, checked)
        rescheduled = config.training.steering.scheduled and steps != self._steps
        if self._models is None or rescheduled or user_model.changes_the_model(config):
            self._models, self._steps = fresh, steps
        else:
            copy_variables(fresh.trainer.variables, self._models.trainer.variables)
            copy_variables(fresh.trainer.optimizer.variables, self._models.trainer.optimizer.variables)
        return self._models


def _fresh(
    workload: Workload, config: Pipeline, classes: Sequence[str], seed: int, steps: int, start: Weights | None = None
) -> Models:
    steering = config.training.steering
    seed_all(seed)
    low = accelerators.precision(config.training) == "bfloat16"
    with _own_chance(seed):
        model = workload.build(config, classes)
        if start is not None:
            start.assign(model)
        if low or config.training.augment:
            _check_not_compiled(model)
            model.jit_compile = jit() is not False  # it predicts, and is not compiled itself
        if low:
            _check_copyable(model)
        learner = in_bfloat16(model) if low else model
    trainer = augmentation.augmented(learner, workload, config.training, seed) if config.training.augment else learner
    if not user_model.compiled(config, trainer):
        workload.compile(trainer, config, optimizers.optimizer(steering, steps))
    trainer.optimizer.build(trainer.trainable_variables)
    if model is learner and trainer.optimizer.use_ema:  # the YAML's, or of the user's own compile
        model = untrained(workload, config, classes)
    return Models(trainer, learner, model, TrainSteps())


def _check_not_compiled(model: Any) -> None:
    """Raises ConfigurationError: what is compiled is another model than the one that model.function gives."""
    if model.compiled:
        raise ConfigurationError(
            "model.function compiles the model, but with training.augment or bfloat16 another one is trained",
            expected="model.compile: module:function, which is called with the model that is trained",
            received="a compiled model",
            hint="Move the call of compile there, or remove these keys of training",
        )


def _check_new(model: Any, before: Any) -> None:
    """Raises ConfigurationError where two models share variables: a fit would start with what another has learned."""
    known = {id(variable) for variable in before.variables}
    shared = [variable.path for variable in model.variables if id(variable) in known]
    if shared:
        raise ConfigurationError(
            "two calls of model.function gave models with the same weights",
            expected="a model of new layers at each call: a fold must not start with what another fold has learned",
            received=f"{len(shared)} variables that both have, such as {shared[0]}",
            hint="Make all layers within the function, not when the module is imported",
        )


def _check_copyable(model: Any) -> None:
    """Raises ConfigurationError where the layers of the model are its own code's to call."""
    if not isinstance(model, keras().Sequential | keras().Function):
        raise ConfigurationError(
            "model.function gives a model that cannot be trained in bfloat16",
            expected="a Sequential or functional model, whose layers can be built again in bfloat16",
            received=f"{type(model).__name__}, a subclass of keras.Model with a call of its own",
            hint="Use training.precision: float32, or build the model of its layers by keras.Model(inputs, outputs)",
        )


def untrained(workload: Workload, config: Pipeline, classes: Sequence[str]) -> Any:
    """The network as it is evaluated and saved, not compiled: a package needs no optimiser."""
    model = uncompiled(workload.build(config, classes), user_model.objects(config))
    model.jit_compile = jit() is not False
    return model


def copy_variables(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Assign each variable of one model to its counterpart in another of the same structure.

    Raises ConfigurationError where the structures differ: a model function must not depend on chance.
    """
    shapes = [tuple(v.shape) for v in source]
    if shapes != [tuple(v.shape) for v in target]:
        raise ConfigurationError(
            "two calls of the model function built two different models",
            expected="the same layers at every call",
            received=f"{len(shapes)} variables, then {len(target)} of other shapes",
            hint="Make model.function depend on its arguments alone",
        )
    copy = keras().ops.copy  # JAX's steps reuse the memory of what they are given: no two variables may share it
    for new, old in zip(source, target, strict=True):
        old.assign(copy(new.value))


def check_loadable(workload: Workload, config: Pipeline, classes: Sequence[str]) -> Any:
    """Save the untrained model and load it again in safe mode; the model.

    A model with classes or functions of the user's own that model.custom_objects does not name could be
    trained and never be loaded again. So are the user's functions called once that compile it and make its callbacks.
    Raises ConfigurationError, before any training.
    """
    with MODEL_LOCK:
        seed_all(0)
        model = workload.build(config, classes)
        user_model.compiled(config, model)
        user_model.callbacks(config)
        objects = user_model.objects(config)
        try:
            foreign = _foreign(model.get_config(), objects)  # before a compiled one is made again, which would fail
            if not foreign:
                data = save(uncompiled(model, objects))
                foreign = _foreign(_layers(data), objects)
            if not foreign:
                load(data, objects)
        except Exception as error:
            if isinstance(error, LeptonflowError) and not isinstance(error, TrainingError):
                raise  # no room for the file, say, whatever the model is
            raise ConfigurationError(
                "the model cannot be saved and loaded again in safe mode",
                expected="a model of Keras's own layers, without Python lambdas",
                received=_first_line(error.__cause__ or error),
                hint="Build it of keras.layers and keras.ops, or name what else it has in model.custom_objects",
            ) from error
        if foreign:
            raise ConfigurationError(
                "the model could not be loaded without the code that built it",
                expected="a model of Keras's own layers and functions, or of those in model.custom_objects",
                received=", ".join(sorted(foreign)),
                hint="Build it of keras.layers and keras.ops, or name what else it has in model.custom_objects",
            )
        return model


def _layers(data: bytes) -> Any:
    with zipfile.ZipFile(BytesIO(data)) as file:
        return json.loads(file.read("config.json"))


def _foreign(node: Any, objects: Mapping[str, Any]) -> set[str]:
    """The classes and functions in a model's configuration that are neither Keras's own nor named in `objects`."""
    if isinstance(node, list):
        return set[str]().union(*(_foreign(item, objects) for item in node))
    if not isinstance(node, dict):
        return set()
    found = set[str]().union(*(_foreign(item, objects) for item in node.values()))
    if "class_name" in node and "config" in node and "module" in node:
        module, name = node["module"] or "", str(node["class_name"])
        own = module == "keras" or module.startswith("keras.")
        if name == "function" and not own:
            found |= {str(node["config"])} - {*objects}
        elif not own and module not in ("", "builtins") and not {name, node.get("registered_name")} & {*objects}:
            found.add(f"{module}.{name}")
    return found
