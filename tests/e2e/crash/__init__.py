"""`kill -9` at any moment of `ingest` or `retrain`, then the same command again: nothing is lost, nothing is twice.

Real commands in real processes, killed at chosen writes (killing.py), and compared with a run that
nobody disturbed. `make test` kills at four writes; the slow tests at every one, on a directory and on S3.
"""

import pytest

pytest.register_assert_rewrite("tests.e2e.crash.scenes")  # what it asserts says what it found
