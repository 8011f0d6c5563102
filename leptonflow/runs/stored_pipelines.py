"""Which pipelines a store holds something of: one list for every command, page and notebook.

What is known of one of them does not belong here (pipeline_status).
"""

from __future__ import annotations

from leptonflow.core import store_keys
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import LOGS
from schemas.config import NAME

# Those that hold a folder for each pipeline.
FOLDERS = (*LOGS, store_keys.BATCHES, store_keys.FITS, store_keys.LANDING, store_keys.MODELS, store_keys.RUNS)


def names(store: Store) -> list[str]:
    """Their names, sorted. A folder whose name is no pipeline's, made by hand, is none."""
    found = {name for folder in FOLDERS for name in store.folders(folder)}
    return sorted(name for name in found if NAME.fullmatch(name))
