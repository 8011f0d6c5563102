"""What is written to a connection: a response's head and body in one packet."""

from __future__ import annotations

import asyncio

from serving.connections import Joined


class Transport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_what_is_written_within_one_turn_is_sent_together() -> None:
    async def scenario() -> list[bytes]:
        transport = Transport()
        joined = Joined(transport, asyncio.get_running_loop())
        for part in (b"head", b"body"):
            joined.write(part)
        await asyncio.sleep(0)
        joined.write(b"next")
        await asyncio.sleep(0)
        return transport.sent

    assert asyncio.run(scenario()) == [b"headbody", b"next"]


def test_what_waits_is_sent_before_the_end_and_nothing_after_it() -> None:
    async def scenario() -> tuple[list[bytes], bool]:
        transport = Transport()
        joined = Joined(transport, asyncio.get_running_loop())
        joined.write(b"last")
        joined.close()
        joined.write(b"too late")
        await asyncio.sleep(0)
        return transport.sent, joined.is_closing()

    assert asyncio.run(scenario()) == ([b"last"], True)
