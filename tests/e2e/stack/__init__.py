"""`leptonflow up` from outside: server, worker, watcher and S3 server as real processes, data put there by others.

What a part does by itself is tests/integration's; here is what a person sees when all of them run.
"""

import pytest

pytest.register_assert_rewrite("tests.e2e.stack.stacks")
