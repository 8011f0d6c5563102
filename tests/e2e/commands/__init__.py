"""Every command from outside, on one small pipeline of handwritten digits.

A file for each thing that is asked of it. What does not belong here: input that is bad (bad_input/), stores on S3
(test_stores.py), and what a kill leaves (crash/).
"""

import pytest

pytest.register_assert_rewrite("tests.e2e.commands.places")  # what it asserts says what it found
