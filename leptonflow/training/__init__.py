"""Fits: each fold and the final fit. The package, the holdout and any judgement do not belong here."""
