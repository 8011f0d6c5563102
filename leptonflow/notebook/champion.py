"""A pipeline's champion: its version, its metrics, its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.evaluation import champion_predictions
from leptonflow.registry.champion_log import Champion as Promoted
from leptonflow.runs import champion_metrics, recording
from leptonflow.storage.store import Store
from schemas.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Examples = str | Path | NDArray[Any] | Sequence[str | Path] | Sequence[NDArray[Any]] | pd.Series[str]


@dataclass(frozen=True)
class Champion:
    """The version that was the champion when it was opened, and stays the same one here.

    metrics: on the holdout, of the newest finished run that evaluated it, as in `status --json`; empty where there is
    none. since: when it became the champion, ISO 8601 in UTC.
    """

    pipeline: str
    version: str
    since: str
    metrics: dict[str, float | None]
    _promoted: Promoted = field(repr=False)
    _store: Store = field(repr=False)

    def predict(self, examples: Examples) -> pd.DataFrame:
        """A row for each example, as `leptonflow predict --json` has it: file, label, probability, version, error.

        examples: a path or several, a folder meaning all that lies in it; or an array of N, N x H x W [x C], as an
        `.npy` source has them, or a list of N such of one shape. For a champion of texts a str is a text, and so is
        each element of a list, an array or a pandas Series of str; files and tables are given as pathlib.Path. What
        cannot be read has null in `label` and `probability`, and the reason in `error`. Raises UsageError for an array
        of another shape, Damaged where a file of the package is not what was recorded.
        """
        import numpy as np
        import pandas as pd

        if isinstance(examples, np.ndarray) and not (examples.ndim == 1 and examples.dtype.kind in "OUT"):
            several: list[Any] | NDArray[Any] = examples
        else:
            several = [examples] if isinstance(examples, str | Path) else list(examples)
            if any(isinstance(each, np.ndarray) for each in several):
                several = _stacked(several)
        if isinstance(several, np.ndarray):
            rows = champion_predictions.predict_array(self._store, self.pipeline, self._promoted, several)
        else:
            given = [each if isinstance(each, Path) else _text(each) for each in several]
            rows = champion_predictions.predict_given(self._store, self.pipeline, self._promoted, given, False)
        return pd.DataFrame(rows, columns=list(champion_predictions.COLUMNS))


def champion(store: Store, pipeline: str) -> Champion:
    """The pipeline's champion now. Raises NotFound where it has none."""
    now = champion_predictions.current(store, pipeline)
    metrics = champion_metrics.newest(store, pipeline, now.version, recording.runs(store, pipeline))
    return Champion(pipeline, now.version, now.since, metrics or {}, now, store)


def _text(value: Any) -> str:
    """A text, or a path written as one; "" for a missing value of pandas."""
    import pandas as pd

    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value != value:
        return ""
    raise UsageError("this is not an example", expected="a path, a text, or arrays", received=repr(value)[:100])


def _stacked(examples: Sequence[Any]) -> NDArray[Any]:
    import numpy as np

    try:
        return np.stack(examples)
    except ValueError:
        shapes = sorted({str(np.shape(each)) for each in examples})
        raise UsageError(
            "the arrays cannot be read together", expected="examples of one shape", received=", ".join(shapes[:5]),
            hint="Predict examples of different shapes one by one, each as example[None]",
        ) from None  # fmt: skip
