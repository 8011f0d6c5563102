"""What an ML task must bring: a frozen record of functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from schemas.augmentation import Operation
from schemas.config import Pipeline

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Metrics = dict[str, float | None]


class Examined(NamedTuple):  # one for each example: a dataclass takes three times as long to make
    """One raw example after a look at it: a rule and reason where it is refused, else id, facts, encoded bytes.

    id      sha256 (hex) of the canonical content: the same in whatever file it comes
    facts   the example's metadata: plain numbers and strings, for contracts, drift and slices
    encoded the example as a part holds it: an image's pixels, a text's characters
    note    what a person should know of an example that is accepted, such as which page was taken
    """

    rule: str | None
    reason: str | None
    id: str | None = None
    facts: dict[str, Any] | None = None
    encoded: bytes | None = None
    note: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why the example is refused, in one line; None where it is not."""
        return f"{self.rule}: {self.reason}" if self.rule else self.reason


class Derived(NamedTuple):
    """Metadata that is not recorded: `value` of the recorded metadata that it `needs`, in their order."""

    needs: tuple[str, ...]
    value: Callable[..., float]

    def of(self, facts: Mapping[str, Any]) -> float | None:
        """The value of one example; None where it lacks one that is needed."""
        given = [facts.get(name) for name in self.needs]
        return None if None in given else self.value(*given)


class Suffixes(NamedTuple):
    """Which files of a source hold one example each, by their names' suffixes in lower case.

    held  of files that do
    only  no others are looked at; else every file is that is of no other known kind, such as a document or a table
    """

    held: frozenset[str] = frozenset()
    only: bool = False


class Codec(NamedTuple):
    """How an encoded example lies in a part and in memory. `input` is the section of the YAML.

    column  the name of the part's column
    arrow   input -> its type
    read    a column of N, input -> N examples as an array, the first axis N
    empty   N, input -> such an array, not filled
    stack   the encoded bytes of N examples, input -> such an array
    raw     such an array -> the encoded bytes of each
    bytes   input -> bytes of one example in such an array, about
    """

    column: str
    arrow: Callable[[Any], pa.DataType]
    read: Callable[[pa.Array, Any], NDArray[Any]]
    empty: Callable[[int, Any], NDArray[Any]]
    stack: Callable[[Sequence[bytes], Any], NDArray[Any]]
    raw: Callable[[NDArray[Any]], list[bytes]]
    bytes: Callable[[Any], int]


class Metric(NamedTuple):
    """A metric by its name; label: the class of a metric of one class, None for one of all examples."""

    name: str
    higher_is_better: bool
    label: str | None = None

    @property
    def key(self) -> str:
        """As a YAML and a table name it: `recall[cat]`."""
        return self.name if self.label is None else f"{self.name}[{self.label}]"


class Scores(Protocol):
    """The metrics of N predictions, from what each example contributes to them.

    metrics     what `value` knows: of all examples first
    correct     (N,) whether each prediction is right; None where predictions are not right or wrong
    confidence  (N,) the probability that each prediction was given, 0..1; None where there is no such thing
    """

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    @property
    def correct(self) -> NDArray[np.bool_] | None: ...

    @property
    def confidence(self) -> NDArray[np.float64] | None: ...

    def __len__(self) -> int: ...

    def value(self, metric: Metric, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """weights (R, N): how often each example counts in each of R resamples -> (R,); NaN: there is no value."""

    def proportion(self, metric: Metric) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """(among, hits), each (N,): the metric is the share of `hits` in `among`. None where it is no such share."""

    def alike(self, metric: Metric) -> NDArray[np.int64]:
        """(N,) numbers: examples with the same one contribute the same to the metric."""

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """[true][predicted] of classes, in their order; () where there are none."""

    def of(self, chosen: NDArray[np.int64]) -> Scores:
        """Of the examples with these numbers alone."""


def named(scores: Scores, key: str) -> Metric:
    """The metric that a YAML calls `key`. Raises ValueError where there is none."""
    for metric in scores.metrics:
        if metric.key == key:
            return metric
    raise ValueError(f"no metric is named {key!r}; choose from {', '.join(m.key for m in scores.metrics)}")


def right(scores: Scores, metric: Metric) -> NDArray[np.bool_] | None:
    """(N,) which predictions are right, where the metric is their share among all examples; else None."""
    found = scores.proportion(metric)
    return found[1] if found is not None and found[0].all() else None


def score(scores: Scores) -> Metrics:
    """Every metric by its key, each example counted once; null where it has no value."""
    import numpy as np

    once = np.ones((1, len(scores)), np.int64)
    found = {metric.key: float(scores.value(metric, once)[0]) for metric in scores.metrics}
    return {key: value if np.isfinite(value) else None for key, value in found.items()}


@dataclass(frozen=True)
class Target:
    """What is predicted of an example, from its label to the scores. N examples, K classes (0: there are none).

    classes  whether a label is one of a closed set of names, which the YAML or the first batch fixes
    fault    a label -> why it is none; of classes the set decides
    read     N labels as a part holds them, the classes -> N true values, such as class numbers
    fit      N true values, K -> what the loss takes
    curve    N true values, N outputs of the model -> the values of a learning curve
    scores   N true values, N outputs, the classes -> their scores
    columns  the same -> the columns of a file of predictions; `label` and `predicted` are text
    stored   those of them that `restore` needs
    restore  a table of `stored`, the classes -> (N true values, N outputs)
    answer   one output, the classes -> (what is predicted as text, its probability or None)
    """

    classes: bool
    fault: Callable[[str], str | None]
    read: Callable[[Sequence[str], Sequence[str]], NDArray[Any]]
    fit: Callable[[NDArray[Any], int], NDArray[np.float32]]
    curve: Callable[[NDArray[Any], NDArray[np.float64]], dict[str, float]]
    scores: Callable[[NDArray[Any], NDArray[np.float64], Sequence[str]], Scores]
    columns: Callable[[NDArray[Any], NDArray[np.float64], Sequence[str]], dict[str, pa.Array]]
    stored: tuple[str, ...]
    restore: Callable[[pa.Table, Sequence[str]], tuple[NDArray[Any], NDArray[np.float64]]]
    answer: Callable[[NDArray[np.float64], Sequence[str]], tuple[str, float | None]]


class Malformed(NamedTuple):
    """What a package must answer with an error: arrays of examples, and bodies of requests, each by what is wrong."""

    arrays: Mapping[str, NDArray[Any]]
    bodies: Mapping[str, bytes]


class Told(NamedTuple):
    """What a model card says of the examples: what goes in, how, and Python that loads the package's files.

    out  what comes out, where that is not one of the classes
    """

    what: str
    how: str
    code: str
    out: str = "a prediction"


class Proposal(NamedTuple):
    """What `init` says of some examples of a source, and the YAML that a pipeline of such examples starts from.

    told, seen  what was found: lines of a word and a sentence for a person, and keys for a program
    input       the section `input`, as JSON; why: why it is proposed, None without examples
    kind        what is trained: an image classifier
    The others are lines of the YAML, each with the comment above it: sources (a comment alone), section (`input`),
    model, training, baseline (the comment of that rule).
    """

    told: tuple[tuple[str, str], ...]
    seen: Mapping[str, Any]
    input: Any
    why: str | None
    kind: str
    sources: str
    section: str
    model: str
    training: str
    baseline: str


class Mark(NamedTuple):
    """The part text[start:end] of a shown text: the predicted probability drops by `effect` where it is taken out."""

    start: int
    end: int
    effect: float


class Patch(NamedTuple):
    """A rectangle of a shown image, in its pixels: the predicted probability drops by `effect` where it is hidden."""

    top: int
    left: int
    height: int
    width: int
    effect: float


class Shown(NamedTuple):
    """An example as a report shows it: a thumbnail, or a text; and its parts that were tried."""

    thumbnail: str | None = None  # its address, such as a data URI
    text: str | None = None
    marks: tuple[Mark, ...] = ()  # in the order of the text
    patches: tuple[Patch, ...] = ()  # row by row
    overlay: str | None = None  # the address of the image with its patches


class Slices(NamedTuple):
    """Some quality of N examples, by which a report tells how good the predictions are.

    name  what it is, such as words; values: the slices in their order; of: the number of the slice of each example
    """

    name: str
    values: tuple[str, ...]
    of: NDArray[np.int64]


class Candidate(Protocol):
    """A trained model: what a package offers."""

    @property
    def vocabulary(self) -> str | None:
        """What was learned from its training examples before the model was; None for a workload without any."""

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """The outputs for N examples."""


class Evaluated(NamedTuple):
    """N examples of the holdout as an array, the section `input`, and the model, which is loaded when it is called."""

    examples: NDArray[Any]
    input: Any
    candidate: Callable[[], Candidate]


class Panels(NamedTuple):
    """What a report shows of a holdout besides the predictions.

    shown   the numbers of some examples, the most important first -> how each is shown
    slices  of all examples
    note    a sentence on how the examples are shown; "" for none
    """

    shown: Callable[[Sequence[int]], dict[int, Shown]]
    slices: tuple[Slices, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """An ML task as functions. N examples as an array, K classes; `input` is the section of the YAML."""

    name: str
    noun: str  # its examples
    preprocessing_version: int
    checks_version: int
    contract: str  # the default contract's file name under schemas/
    layouts: frozenset[str]  # of sources that it takes: folders, npy, table
    suffixes: Suffixes
    codec: Codec
    encoding: Callable[[Any], Any]  # input -> as much of it as changes an encoded example
    examine: Callable[[bytes, Any], Examined]  # a file's bytes, or a cell's, input -> Examined
    encode_accepted: Callable[[bytes, Any], bytes | None]
    # ^ the bytes of a file that was accepted when less was checked -> encoded; None where there is no room
    encode: Callable[[NDArray[Any], str | None, Any], NDArray[Any]]
    # ^ N examples, the vocabulary, input -> what the model takes. Raises TrainingError for other examples
    build: Callable[[Pipeline, Sequence[str]], Any]  # -> an uncompiled keras.Model: encoded examples -> N outputs
    compile: Callable[[Any, Pipeline, Any], None]  # a model, with its loss and the optimiser of the YAML
    target: Target
    baselines: Callable[
        [NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], Sequence[str], int], dict[str, Metrics]
    ]
    # ^ examples and true values of the training set, of the holdout, classes, seed -> metrics of very simple models
    baseline_words: Mapping[str, str]  # what each of them is, in words
    request: Callable[[bytes, Any], Any]  # a served body, input -> one example of such an array
    malformed: Callable[[Any], Malformed]
    remarks: Callable[[Sequence[Mapping[str, Any]], Any], list[str]]
    # ^ the metadata of examples, input -> what a person should know before they are trained on
    told: Callable[[Any], Told]  # input -> what is said of it
    look: Any  # the section `input` with which `init` examines a source
    propose: Callable[[Sequence[Mapping[str, Any]], int, tuple[str, ...], str | None], Proposal]
    # ^ the metadata of some examples, how many there are in all, the columns of the table that hold them (or none) and
    #   the one of labels, if it was named
    panels: Callable[[Evaluated], Panels]  # what a report shows of the holdout
    explain: Callable[[NDArray[Any], Any, Candidate], list[Shown]] | None = None
    # ^ N examples, input, the model -> each with the parts that mattered for its prediction; None: nothing does it
    examine_array: Callable[[NDArray[Any], Any, Any], Examined] | None = None
    # ^ one row of a .npy array, input, and the scale of the whole array
    cells: Callable[[Any], tuple[str, ...]] | None = None
    # ^ input -> the columns of a table that hold the example itself (none: those found by name); None: it names files
    label: Callable[[Any], str | None] = lambda given: None  # input -> a table's column of labels (None: that found)
    typed: Callable[[str, Any], Examined] | None = None
    # ^ an example that a person wrote on a command line or in a notebook, input; None: there are only files
    vocabulary: Callable[[NDArray[Any], Any], str] | None = None
    # ^ what is learned from a fit's own training examples before the model is: a JSON that `encode` takes
    step_bytes: Callable[[Pipeline], int] = lambda config: 0
    # ^ the memory of one step of training at least, in bytes; 0: not known
    augment: Callable[[Sequence[Operation], Sequence[int]], list[Any]] | None = None
    # ^ operations of `training.augment` but mixup, a seed for each -> Keras layers, one after another, from examples as
    #   the model takes them to such examples; they are called in training alone
    errors: Callable[..., Any] | None = None  # classification_errors.analyse: which predictions are wrong
    derived: Mapping[str, Derived] = field(default_factory=dict)  # metadata that follows from what is recorded
    carriers: frozenset[str] = frozenset()
    # ^ metadata of the file and not of what is in it: the same example can come in another one
    input_statistics: Callable[[NDArray[Any], Any], Mapping[str, NDArray[np.float64]]] | None = None
    # ^ N encoded examples, input -> numbers of them as the model takes them, by name, (N,) each: drift that the model
    #   hardly reacts to is seen by these. One that is computed in another way has another name. None: there are none
    file: Callable[[bytes, Any], tuple[str, bytes]] | None = None
    # ^ an encoded example, input -> (suffix, bytes) of a file that is examined as that example; None: there is none

    def score(self, truth: NDArray[Any], outputs: NDArray[np.float64], classes: Sequence[str]) -> Metrics:
        """Every metric of N true values against N outputs; null where it has no value."""
        return score(self.target.scores(truth, outputs, classes))
