"""The one importer of Optuna: which values a trial tries, and when it is given up.

Optuna's study is made anew for every trial from the records on the store, so that a study that goes on elsewhere goes
on as it would have here. What does not belong here: the records themselves (study_records), and training (trials).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core.hashing import digest
from schemas import tuning
from schemas.config import Pipeline
from schemas.trials import Study, Trial
from schemas.tuning import Choices, Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST = 5  # complete trials before one is given up
DIGITS = 3  # of a value between two ends: a YAML that a person reads


class Suggestion(NamedTuple):
    """parameters: values by their keys; hopeless: a fold (from 0), the mean of the folds so far -> whether to stop."""

    parameters: dict[str, Any]
    hopeless: Callable[[int, float], bool]


def suggestion(study: Study, config: Pipeline, trials: Sequence[Trial]) -> Suggestion:
    """What the trial after these tries: by the tree-structured Parzen estimator (Bergstra et al. 2011), Optuna's TPE.

    It depends on the study and on these trials alone. A trial is hopeless where no mean of its folds so far reaches the
    median that complete trials had after as many folds.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(digest("trial", study.study, len(trials) + 1)[:8], 16)
    made = optuna.create_study(
        direction="maximize" if study.higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        # One fold alone is too much of a chance, if there are more than two.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=LEAST, n_warmup_steps=1 if study.folds > 2 else 0),
    )
    space = {key: _distribution(key, of, config) for key, of in config.tune.ranges.items()}
    for each in trials:
        known = _frozen(each, config, space)
        if known is not None:
            made.add_trial(known)
    trial = made.ask(space)

    def hopeless(fold: int, mean: float) -> bool:
        trial.report(mean, fold)
        return bool(trial.should_prune())

    parameters = {key: _value(config.tune.ranges[key], trial.params[key]) for key in space}
    return Suggestion(parameters, hopeless)


def _distribution(key: str, of: Range | Choices, config: Pipeline) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(of, Choices):
        return CategoricalDistribution(range(len(of.choices)))  # the numbers of the choices: they may be lists
    if tuning.whole(key, of, config.training, config.model):
        return IntDistribution(int(of.low), int(of.high), log=of.log)
    return FloatDistribution(of.low, of.high, log=of.log)


def _value(of: Range | Choices, suggested: Any) -> Any:
    if isinstance(of, Choices):
        return of.choices[suggested]
    if isinstance(suggested, int):
        return suggested
    return min(max(float(f"{suggested:.{DIGITS}g}"), of.low), of.high)


def _frozen(trial: Trial, config: Pipeline, space: dict[str, BaseDistribution]) -> FrozenTrial | None:
    """A recorded trial as Optuna knows it; None where it lies outside of the ranges, as the YAML's own values may."""
    import statistics

    from optuna.trial import TrialState, create_trial

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    parameters: dict[str, Any] = {}
    for key, of in config.tune.ranges.items():
        value = trial.parameters.get(key)
        if isinstance(of, Choices):
            if value not in of.choices:
                return None
            parameters[key] = of.choices.index(value)
        elif not isinstance(value, int | float) or not of.low <= value <= of.high:
            return None
        else:
            parameters[key] = value
    known = [value for value in trial.values if value is not None]
    return create_trial(
        state=states[trial.state],
        value=trial.value if trial.state == "complete" else None,
        params=parameters,
        distributions=space,
        intermediate_values={fold: statistics.fmean(known[: fold + 1]) for fold in range(len(known))},
    )
