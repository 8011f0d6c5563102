"""A setting of Prefect's as its own client reads it: of the environment, else of the active profile. No import of it.

What does not belong here: what a setting is for.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path


def setting(name: str) -> str | None:
    """The setting's value, None where neither names it."""
    if os.environ.get(name):
        return os.environ[name]
    home = Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no profiles, or none that Prefect could read either
        return None
    profile = document.get("profiles", {}).get(os.environ.get("PREFECT_PROFILE") or document.get("active"), {})
    value = profile.get(name)
    return str(value) if value else None
