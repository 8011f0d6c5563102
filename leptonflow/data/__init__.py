"""From files to a dataset: ingest, validation, and the dataset with its snapshots and split."""
