"""Whose fault it is that a batch could not be examined: the batch's, which is refused alone, or somebody else's.

What does not belong here: what becomes of the batch (admission), and rules for single rows (examination).
"""

from __future__ import annotations

from schemas.errors import ConfigurationError, LeptonflowError, Overtaken, StoreError, TimeLimit

LONGEST = 300


def sentence(error: Exception) -> str | None:
    """Why the batch is refused whose examination raised this, in one line.

    None where it is not the batch's fault, and trying again may help: the store, the configuration, a time limit, or
    what the system said no to.
    """
    if isinstance(error, StoreError | ConfigurationError | TimeLimit | Overtaken):
        return None
    if isinstance(error, LeptonflowError):
        return f"the batch cannot be examined: {error.line()}"
    if isinstance(error, OSError) and error.errno is not None:
        return None
    words = " ".join(str(error).split())[:LONGEST]
    told = type(error).__name__ + (f": {words}" if words else "")
    return f"the batch cannot be examined ({told}); land its undamaged files again under another batch name"
