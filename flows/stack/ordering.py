"""The order in which the server of `up` handles events: Prefect's own, but for what a server's restart breaks in it.

Prefect holds an event back until it has seen the one that it follows, a run's state until the state before, and knows
in memory alone what it has seen. After a restart it so waits a quarter of an hour for events of the time before, which
do not come again: for so long, no automation hears how a run went on that its server's end interrupted.
`flows.server` names this module in the server's settings. What does not belong here: what automations do.
"""

from __future__ import annotations

import time
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

BEGAN = time.time()  # of this server's process, which imports this module when it starts


class CausalOrdering(memory.CausalOrdering):
    """Waits for no event that is older than this process."""

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Prefect's, where the event that this one follows can still come."""
        if event.follows is None or not older(event.follows, BEGAN):
            await super().wait_for_leader(event)


def older(identity: UUID, moment: float) -> bool:
    """Whether an id was made before a moment (seconds of the epoch). Prefect's are UUIDs of version 7, which tell."""
    return identity.version == 7 and (identity.int >> 80) / 1000 < moment
