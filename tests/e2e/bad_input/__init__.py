"""Bad input, from outside: a clear line, nothing lost. Every line of that section of the issue.

A file for each thing that can be bad. What does not belong here: input that is good (commands/, test_stores.py).
"""

import pytest

pytest.register_assert_rewrite("tests.e2e.bad_input.sources")  # what it asserts says what it found
