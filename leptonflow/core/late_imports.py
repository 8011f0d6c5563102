"""Modules that a library imports at its start and rarely uses: each is imported at its first use instead.

`importlib.util.LazyLoader` does not do for this: an import statement alone makes it load the module.
What does not belong here: which modules, and whose start they slow down.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands in `sys.modules` for a module until something of that is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def late(*names: str) -> None:
    """Import these modules at their first use. Those that are imported already stay."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = _Late(name)
