"""What every room uses: hashing, code digests, store keys, clock, deadlines, child processes, progress.

Nothing here knows a store, an example or a run.
"""
