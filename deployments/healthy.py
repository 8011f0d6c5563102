"""Exit status 0 where a worker of this host is online at the Prefect server: the health check of a worker's container.

    python healthy.py POOL

It asks the API that PREFECT_API_URL names, with PREFECT_API_AUTH_STRING where the server wants one. Nothing is
imported beside the standard library, since it runs every half minute.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import urllib.request


def online(pool: str, host: str) -> bool:
    """Whether the pool has a worker whose name carries this host's and whose heartbeats the server still gets."""
    headers = {"Content-Type": "application/json"}
    secret = os.environ.get("PREFECT_API_AUTH_STRING")
    if secret:
        headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
    request = urllib.request.Request(
        f"{os.environ['PREFECT_API_URL']}/work_pools/{pool}/workers/filter", b'{"limit": 200}', headers
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        workers = json.load(response)
    return any(worker["status"] == "ONLINE" and host in worker["name"] for worker in workers)


if __name__ == "__main__":
    try:
        sys.exit(0 if online(sys.argv[1], socket.gethostname()) else 1)
    except OSError as error:  # the server cannot be asked: nor can the worker
        sys.exit(str(error))
