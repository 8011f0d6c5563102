"""Every error that leptonflow raises on purpose. Catching `LeptonflowError` catches them all.

LeptonflowError             exit 1   a failure; the base of all others
├── UsageError              exit 2   wrong usage of a command
│   └── ConfigurationError  exit 2   a pipeline's YAML or contract is wrong
├── StoreError              exit 1   the store said no
│   ├── StoreUnreachable    exit 1   cannot be reached, read or written
│   │   └── StoreRefused    exit 1   reached, and refused: credentials, a missing bucket
│   ├── NotFound            exit 1   no object has that key
│   ├── AlreadyExists       exit 1   `create` of a key that exists
│   └── Damaged             exit 1   bytes are not those that were recorded
├── Overtaken               exit 1   a write conflict: another writer committed first
├── ExaminerLost        exit 1   a process that checks examples ended before its result
├── LandingChanged          exit 1   landed files differ from what was accepted
├── ServerError             exit 1   the Prefect server does not answer
├── TimeLimit               exit 1   a stage took longer than the pipeline's YAML allows
└── TrainingError           exit 1   the model cannot be built, trained, saved or loaded

What does not belong here: formatting for a terminal, and any decision about what to do next.
"""

from __future__ import annotations

from schemas.text import printable


class LeptonflowError(Exception):
    """A failure told in one line: what was expected, what was received, what to do."""

    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.received = received
        self.hint = hint

    def __str__(self) -> str:
        return self.line()

    def line(self) -> str:
        """The error as one line of plain text, control characters escaped."""
        parts = [self.message.rstrip(".!")]
        if self.expected:
            parts.append(f"Expected: {self.expected.rstrip('.')}")
        if self.received:
            parts.append(f"Received: {self.received.rstrip('.')}")
        if self.hint:
            parts.append(self.hint.rstrip("."))
        return printable(" ".join(part if part.endswith("?") else f"{part}." for part in parts))

    def document(self) -> dict[str, dict[str, str | None]]:
        """The error as the `--json` document."""
        return {
            "error": {
                "message": self.message,
                "expected": self.expected,
                "received": self.received,
                "hint": self.hint,
            }
        }

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.expected, self.received, self.hint)


def _rebuild(
    kind: type[LeptonflowError], message: str, expected: str | None, received: str | None, hint: str | None
) -> LeptonflowError:
    """Errors cross process borders with their keywords."""
    return kind(message, expected=expected, received=received, hint=hint)


class UsageError(LeptonflowError):
    """A command was used wrongly."""

    exit_status = 2


class ConfigurationError(UsageError):
    """A pipeline's YAML, its contract or its model function is wrong."""


class StoreError(LeptonflowError):
    """The store failed, or refused an operation."""


class StoreUnreachable(StoreError):
    """The store cannot be reached, read or written."""


class StoreRefused(StoreUnreachable):
    """The store was reached and refused: wrong credentials, no such bucket. Trying again changes nothing."""


class NotFound(StoreError):
    """No object has that key."""


class AlreadyExists(StoreError):
    """`create` got a key that exists."""


class Damaged(StoreError):
    """What lies on the store is not what was recorded: a broken chain, a changed byte, garbage."""


class Overtaken(LeptonflowError):
    """A write conflict: another writer committed first; the message names it."""


class ExaminerLost(LeptonflowError):
    """A process that checks examples ended before its result: killed, or short of memory."""


class LandingChanged(LeptonflowError):
    """Landed files that must be encoded again are missing or are not those that were accepted."""


class ServerError(LeptonflowError):
    """The Prefect server does not answer."""


class ClusterError(LeptonflowError):
    """The Ray cluster does not answer."""


class TimeLimit(LeptonflowError):
    """A stage took longer than `limits` in the pipeline's YAML allows."""


class TrainingError(LeptonflowError):
    """The model cannot be built, trained, saved or loaded."""


def line_of(error: BaseException) -> str:
    """What went wrong, whatever it was, in one line."""
    return error.line() if isinstance(error, LeptonflowError) else printable(f"{type(error).__name__}: {error}"[:500])


def words_of(error: BaseException) -> str:
    """A library's own words in one line of at most 200 characters; its class where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
