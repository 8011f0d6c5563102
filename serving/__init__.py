"""The champions of a store over HTTP, and the pages that people look at. No Prefect, no training."""
