"""Making the bucket of an S3 store: what `leptonflow doctor --fix` does.

The engine itself never makes a bucket: a mistyped name must be an error. What does not belong here: objects.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from leptonflow.s3 import connection, unreachable
from schemas.errors import UsageError
from schemas.settings import checked_uri


def ensure_bucket(uri: str) -> list[str]:
    """Create the bucket of an s3:// URI where it is missing, and switch its versioning on.

    Versioning is a second safety beside `create`: what another client overwrites or deletes can be had back.
    Returns one sentence for each thing that was done, none where all was as it should be.
    Raises UsageError for another URI or where the extra `s3` is not installed, StoreUnreachable.
    """
    uri = checked_uri(uri)
    if not uri.startswith("s3://"):
        raise UsageError("only an S3 store has a bucket", expected="s3://bucket/prefix", received=uri)
    link = connection()
    bucket = urlsplit(uri).netloc
    client = link.minio("making a bucket")
    import urllib3
    from minio.commonconfig import ENABLED
    from minio.error import MinioException, S3Error
    from minio.versioningconfig import VersioningConfig

    done = []
    try:
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
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise unreachable(link, bucket, error) from error
    return done
