"""The command of a flow run: hands it over to the warm process (flows.stack.warm), and is its stand-in until it ends.

It imports next to nothing. Signals go on to the run, and the run's exit status is this command's. Where there is no
warm process, or its code is older than the disk's, Prefect's engine is started here.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

STALE = b"\xff\xff\xff\xff"
STATUS = struct.Struct("<i")


def main(address: str) -> int:
    """The run's exit status. Returns only where the warm process took it."""
    request = json.dumps({"cwd": os.getcwd(), "environment": dict(os.environ)}).encode() + b"\n"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
        connection.sendall(request)
        answer = connection.recv(STATUS.size, socket.MSG_WAITALL)
    except OSError:
        answer = b""
    if len(answer) < STATUS.size or answer == STALE:
        os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])
    (run,) = STATUS.unpack(answer)

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended, and its status is on the way
            os.kill(run, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    ended = connection.recv(STATUS.size, socket.MSG_WAITALL)
    if len(ended) < STATUS.size:  # the warm process was killed, and its runs with it
        with contextlib.suppress(ProcessLookupError):
            os.kill(run, signal.SIGKILL)
        return 1
    status = int(STATUS.unpack(ended)[0])
    if status < 0:  # killed by a signal: so is this, that the worker sees it
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
