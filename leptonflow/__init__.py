"""Floor 1: the engine. Plain functions and frozen records; it never imports Prefect, flows, tasks or the CLI."""

__version__ = "0.2.0"
