"""The bucket of an S3 store: making it, and the notifications that it sends. What `leptonflow doctor --fix` does.

The engine itself never makes a bucket: a mistyped name must be an error. What does not belong here: objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from leptonflow.core.store_keys import LANDING, READY
from leptonflow.storage.s3 import Connection, connection, unreachable
from schemas.errors import UsageError
from schemas.settings import checked_uri

if TYPE_CHECKING:
    from minio import Minio
    from minio.notificationconfig import NotificationConfig, QueueConfig

ARN = "arn:minio:sqs::leptonflow:webhook"  # MinIO's webhook target of the id `leptonflow`
CREATED = "s3:ObjectCreated:*"
# A server without notifications or without that target, a user who may not ask, and SeaweedFS, which makes a bucket.
_NO_TARGET = (
    "AccessDenied", "BucketAlreadyExists", "BucketAlreadyOwnedByYou", "InvalidArgument", "MalformedXML",
    "MethodNotAllowed", "NotImplemented", "NotSupported",
)  # fmt: skip


def ensure_bucket(uri: str) -> list[str]:
    """Create the bucket of an s3:// URI where it is missing, and switch its versioning on.

    Versioning is a second safety beside `create`: what another client overwrites or deletes can be had back.
    Returns one sentence for each thing that was done, none where all was as it should be.
    Raises UsageError for another URI or where the extra `s3` is not installed, StoreUnreachable.
    """
    link, bucket, _ = _parts(uri)
    client = link.minio("making a bucket")
    from minio.commonconfig import ENABLED
    from minio.error import S3Error
    from minio.versioningconfig import VersioningConfig

    done = []
    with _translated(link, bucket):
        if not client.bucket_exists(bucket):
            try:
                client.make_bucket(bucket)
                done.append(f"created the bucket {bucket!r} on {link.address}")
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):  # another doctor was faster
                    raise
        if client.get_bucket_versioning(bucket).status != ENABLED:
            client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
            done.append(f"switched versioning on for the bucket {bucket!r}")
    return done


def notifies(uri: str) -> bool:
    """Whether the bucket tells a webhook of each `_READY` that is created in this store's landing.

    Raises UsageError where the extra `s3` is not installed, StoreUnreachable.
    """
    link, bucket, prefix = _parts(uri)
    client = link.minio("reading a bucket's notifications")
    with _translated(link, bucket):
        found = _read(client, bucket)
    return found is not None and _is_set(found, prefix)


def ensure_notification(uri: str) -> bool:
    """Have the bucket tell of each `_READY`, where the server has MinIO's webhook target `leptonflow`.

    What else the bucket notifies stays as it is. Returns whether the bucket tells now: False for a server that has no
    such target. Raises UsageError where the extra `s3` is not installed, StoreUnreachable.
    """
    link, bucket, prefix = _parts(uri)
    client = link.minio("setting a bucket's notifications up")
    from minio.error import S3Error
    from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig, SuffixFilterRule

    wanted = QueueConfig(
        queue=ARN,
        events=[CREATED],
        config_id=f"leptonflow {prefix}",
        prefix_filter_rule=PrefixFilterRule(prefix),
        suffix_filter_rule=SuffixFilterRule(READY),
    )
    with _translated(link, bucket):
        found = _read(client, bucket)
        if found is None or _is_set(found, prefix):
            return found is not None
        others = [each for each in found.queue_config_list if not _is_about(each, prefix)]
        config = NotificationConfig(found.cloud_func_config_list, [*others, wanted], found.topic_config_list)
        try:
            client.set_bucket_notification(bucket, config)
        except S3Error as error:
            if error.code in _NO_TARGET:
                return False
            raise
        found = _read(client, bucket)  # some servers take what they do not keep
    return found is not None and _is_set(found, prefix)


def _parts(uri: str) -> tuple[Connection, str, str]:
    """The connection, the bucket, and the prefix of the keys of batches."""
    uri = checked_uri(uri)
    if not uri.startswith("s3://"):
        raise UsageError("only an S3 store has a bucket", expected="s3://bucket/prefix", received=uri)
    parts = urlsplit(uri)
    return connection(), parts.netloc, "/".join(filter(None, [parts.path.strip("/"), f"{LANDING}/"]))


@contextmanager
def _translated(link: Connection, bucket: str) -> Iterator[None]:
    import urllib3
    from minio.error import MinioException

    try:
        yield
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise unreachable(link, bucket, error) from error


def _read(client: Minio, bucket: str) -> NotificationConfig | None:
    """What the bucket notifies; None where the server knows no notifications, or does not tell this user."""
    from minio.error import S3Error

    try:
        return client.get_bucket_notification(bucket)
    except S3Error as error:
        if error.code in _NO_TARGET:
            return None
        raise


def _is_about(config: QueueConfig, prefix: str) -> bool:
    """Whether this is ours, of the current filters or of others."""
    rule = config.prefix_filter_rule
    return bool(config.queue == ARN and rule is not None and rule.value == prefix)


def _is_set(found: NotificationConfig, prefix: str) -> bool:
    return any(
        _is_about(config, prefix)
        and config.suffix_filter_rule is not None
        and config.suffix_filter_rule.value == READY
        and any(event.startswith("s3:ObjectCreated:") for event in config.events)
        for config in found.queue_config_list
    )
