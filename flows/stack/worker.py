"""The worker of `leptonflow up`: Prefect's process worker, whose flow runs start from a warm process.

Any other worker of the pool does as well (`prefect worker start --pool default`): it starts each run in some seconds.
What does not belong here: what a run does, and who starts this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.stack import tether, warm
from schemas.arrivals import POOL

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

INTERRUPTED = "The worker was told to end; another one goes on from what lies on the store"
ENVIRONMENT = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "6",
}


def main(pool: str = POOL) -> None:
    """Take runs from the pool until SIGTERM or SIGINT, which end the runs too and put them back on the schedule."""
    tether.hold()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory(prefix="leptonflow-worker-") as folder:
        address = str(Path(folder) / "warm")
        process = _start_warm(address) if warm.available() else None
        asyncio.run(_work(pool, address, process))


def _start_warm(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.stack.warm", address],
        stdin=subprocess.PIPE,  # its end tells that this process is gone
        pass_fds=tether.descriptors(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(warm.ROOT), os.environ.get("PYTHONPATH")]))},
    )


async def _work(pool: str, address: str, process: subprocess.Popen[bytes] | None) -> None:
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    taken: list[UUID] = []
    command = f"{sys.executable} -I -S {Path(__file__).with_name('handoff.py')} {address}"

    class Configuration(ProcessJobConfiguration):
        def prepare_for_flow_run(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> None:
            taken.append(flow_run.id)
            configured = self.command is not None
            super().prepare_for_flow_run(flow_run, *args, **kwargs)
            if not configured and process is not None:
                self.command = command
                self._command_configured = True

    worker = ProcessWorker(work_pool_name=pool, name=f"leptonflow-{os.uname().nodename}")
    worker.job_configuration = Configuration  # of this one: a subclass would take the type's name in Prefect's registry
    task = asyncio.ensure_future(worker.start())
    loop = asyncio.get_running_loop()

    def end() -> None:
        if process is not None:
            process.terminate()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await _put_back(taken)


async def _put_back(taken: list[UUID]) -> None:
    """Schedule again, for now, what this worker took and did not finish: the next worker goes on from the store."""
    from prefect import get_client
    from prefect.states import AwaitingRetry

    async with get_client() as client:
        for identity in taken:
            run = await client.read_flow_run(identity)
            interrupted = run.state is not None and (
                run.state.is_running() or run.state.is_pending() or run.state.is_crashed()
            )
            if interrupted:
                await client.set_flow_run_state(identity, AwaitingRetry(message=INTERRUPTED), force=True)


if __name__ == "__main__":
    main()
