"""Each row examined, judged and held against the data contract; drift."""
