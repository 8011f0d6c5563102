"""Pauses of Python's garbage collector, where it takes a part of the time and finds nothing.

Reference counts free what they always free; only cycles wait. What does not belong here: when that pays.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused(freeze: bool = False) -> Iterator[None]:
    """No collections within the block. freeze: what it leaves is never looked at again (imported modules)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if enabled:
            gc.enable()
