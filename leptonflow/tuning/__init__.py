"""Studies: trials of other configurations, cross-validated on the training part, and the best as a YAML to review."""
