"""Floor 1: the engine. Plain functions and frozen records; it never imports Prefect, flows, tasks or the CLI."""

__version__ = "0.1.0"
