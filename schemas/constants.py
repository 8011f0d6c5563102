"""Values that several rooms share, and that records on a store hold."""

PROMOTED, REFUSED, WAITING = "promoted", "refused", "waiting"  # verdicts; waiting: for approval
EARLY = "early-refusal.json"  # in the folder of a run that was stopped early: its folds
BEST = "against_best_champion"  # the rule that is added to every `against_champion`
RESERVED = ("class", "batch", "newest")  # what slices may name besides metadata
SPLIT_RULE = 1  # of the holdout: another rule needs another number, since versions trained by both are compared
ATTEMPTS = 10  # to admit a batch: each lost one is another writer's record
