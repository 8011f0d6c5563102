"""Clients that keep their connections and ask again as soon as they are answered, in a process of their own.

    python -m benchmarks.serving.client PORT PATH BODIES FILE [--seconds S] [--requests N]

BODIES is a folder of request bodies. Writes into FILE, as JSON: the number of answers, those that were not 200, and the
seconds of each, with the moment of each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import uvloop

CLIENTS = 16


class Client:
    """One connection after another; `found` holds (moment, seconds, status)."""

    def __init__(self, port: int, path: str, kind: str, bodies: list[bytes]) -> None:
        self.port, self.bodies, self.found = port, bodies, [(0.0, 0.0, 0)] * 0
        self.head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\nContent-Length: "

    async def run(self, more: list[int], until: float) -> None:
        """Ask while `more` has requests left and the time is not over."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        requests = [f"{self.head}{len(body)}\r\n\r\n".encode() + body for body in self.bodies]
        number = 0
        while more[0] > 0 and time.perf_counter() < until:
            more[0] -= 1
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length:") + 15
            await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            now = time.perf_counter()
            self.found.append((now, now - began, int(head[9:12])))
            number += 1
        writer.close()


async def ask(port: int, path: str, kind: str, bodies: list[bytes], requests: int, seconds: float) -> dict[str, object]:
    clients = [Client(port, path, kind, bodies[n:] + bodies[:n]) for n in range(CLIENTS)]
    began, more = time.perf_counter(), [requests]
    results = await asyncio.gather(*(each.run(more, began + seconds) for each in clients), return_exceptions=True)
    found = sorted(each for client in clients for each in client.found)
    return {
        "answers": len(found),
        "wrong": sum(status != 200 for _, _, status in found),
        "lost": [f"{type(each).__name__}: {each}" for each in results if isinstance(each, BaseException)],
        "seconds": time.perf_counter() - began,
        "each": [(round(at - began, 4), round(took, 6)) for at, took, _ in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", default="application/json")
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=10**9)
    given = parser.parse_args()
    bodies = [path.read_bytes() for path in sorted(given.bodies.iterdir())]
    found = uvloop.run(ask(given.port, given.path, given.kind, bodies, given.requests, given.seconds))
    given.file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
