"""Environment variables: changed while a block runs, and those that keep a proxy away from this machine's loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def changed(values: Mapping[str, str | None]) -> Iterator[None]:
    """This process's variables have these values while the block runs; None: the variable is not there."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which no proxy of this environment is asked for the loopback, which none can reach."""
    return {name: ",".join(filter(None, [environment.get(name), "127.0.0.1"])) for name in ("no_proxy", "NO_PROXY")}
