"""The signal with which a worker has a run save its fits before it is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from flows import preemption

RUN = """
import sys, time
from flows import preemption
with preemption.heard(lambda: print("saved", flush=True)):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which process hears a signal")
def test_a_process_that_hears_it_saves_and_waits_for_its_end() -> None:
    deaf = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    with deaf, run:
        try:
            assert run.stdout is not None and deaf.stdout is not None
            assert run.stdout.readline() == "ready\n" and deaf.stdout.readline() == b"\n"
            assert preemption.ask([run.pid, deaf.pid, 2**22 + 1]) == [run.pid]
            assert run.stdout.readline() == "saved\n"
            deadline = time.monotonic() + 10
            while preemption.hears(run.pid):
                assert time.monotonic() < deadline
                time.sleep(preemption.LOOK)
            assert (run.poll(), deaf.poll()) == (None, None)
        finally:
            for process in (run, deaf):
                process.send_signal(signal.SIGKILL)
    assert not preemption.hears(run.pid)
