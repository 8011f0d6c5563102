"""The HTML report: its contents, plots and templates."""
