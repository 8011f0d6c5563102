"""The worker of `leptonflow up`: Prefect's process worker, which schedules again the runs that its end interrupts.

Any other worker of the pool does as well (`prefect worker start --pool default`): what its end interrupts is found by
the automations (flows.automations). What does not belong here: what a run does, and who starts this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows import pool, preemption
from flows.stack import processes
from schemas.arrivals import POOL

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

INTERRUPTED = "The worker was stopped; another worker resumes the run from what is on the store"
ENVIRONMENT = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_MAX_RETRIES": "6",
}


def main(name: str = POOL, saving: float = preemption.SAVE_SECONDS) -> None:
    """Take runs from the pool until SIGTERM or SIGINT, which end the runs too and schedule them again.

    saving: seconds in which their fits may save themselves first; a second signal ends them at once.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    asyncio.run(_work(name, saving))


async def _work(name: str, saving: float) -> None:
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    taken: list[UUID] = []

    class Configuration(ProcessJobConfiguration):
        @classmethod
        async def from_template_and_values(
            cls, base_job_template: dict[str, Any], values: dict[str, Any], client: PrefectClient | None = None
        ) -> Any:
            kept = pool.kept(base_job_template, values)
            return await super().from_template_and_values(base_job_template, kept, client=client)

        def prepare_for_flow_run(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> None:
            taken.append(flow_run.id)
            super().prepare_for_flow_run(flow_run, *args, **kwargs)

    worker = ProcessWorker(work_pool_name=name, name=f"leptonflow-{os.uname().nodename}")
    worker.job_configuration = Configuration  # of this one: a subclass would take the type's name in Prefect's registry
    task = asyncio.ensure_future(worker.start())

    ends: list[asyncio.Task[None]] = []

    def end() -> None:
        task.cancel()
        processes.send(processes.descendants(os.getpid()), signal.SIGKILL)  # Prefect would wait for the runs

    async def save_and_end() -> None:
        runs = preemption.ask(processes.descendants(os.getpid()))
        deadline = time.monotonic() + saving
        while time.monotonic() < deadline and any(map(preemption.hears, runs)):
            await asyncio.sleep(preemption.LOOK)
        end()

    def wish() -> None:
        ends.append(asyncio.ensure_future(save_and_end()))
        if len(ends) > 1:
            end()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, wish)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    if taken:
        await _put_back(taken)


async def _put_back(taken: list[UUID]) -> None:
    """Schedule again, for now, the runs that this worker did not finish: the next worker resumes them."""
    from prefect import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry

    under_way = filters.FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    wanted = filters.FlowRunFilter(
        id=filters.FlowRunFilterId(any_=taken), state=filters.FlowRunFilterState(type=under_way)
    )
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=wanted):
            await client.set_flow_run_state(run.id, AwaitingRetry(message=INTERRUPTED), force=True)


if __name__ == "__main__":
    main(saving=float(sys.argv[1]) if len(sys.argv) > 1 else preemption.SAVE_SECONDS)
