"""A log in S3, or in what speaks its protocol: objects under a prefix.

There is no lock in S3. A checkpoint is replaced only if it is still the one that was seen (`If-Match`), and begun only
if there is none (`If-None-Match`): so of two exporters one stops. A store that takes such a write without looking
would let both go on; it is found out at the start.

Sources: Amazon S3 API Reference (PutObject, GetObject: conditional requests, error codes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

from initiator.audit.store import CHECKPOINT, S3_SCHEME, another_writer
from initiator.core.text import plain
from initiator.errors import Code, HaltError, InitiatorError, RetryError

_AT_ONCE = 16
_PROBE = ".conditional-writes"
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404")
_FOR_A_PERSON = (
    "NoSuchBucket", "AccessDenied", "403", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "ExpiredToken", "InvalidToken", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName",
    "KMS.DisabledException", "KMS.NotFoundException", "NotImplemented",
)  # fmt: skip
_SETUP = (NoCredentialsError, NoRegionError, ProfileNotFound, ValueError)
_HINT = "credentials, Region and endpoint come from AWS's own chain (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3)"


class S3Store:
    """Objects of one bucket whose keys begin with one prefix.

    Args:
        url: `s3://BUCKET` or `s3://BUCKET/PREFIX`.

    Raises:
        HaltError: it is no such URL, or there is no Region or profile.
    """

    def __init__(self, url: str) -> None:
        self._bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
        if not url.startswith(S3_SCHEME) or not self._bucket:
            raise HaltError(Code.AUDIT_INVALID, f"expected s3://BUCKET/PREFIX, got {plain(url)[:80]}", field="log")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._url = plain(url)
        config = Config(retries={"mode": "standard", "total_max_attempts": 5}, max_pool_connections=_AT_ONCE)
        try:
            self._client: Any = boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise self._failed(error) from error
        self._seen: str | None = None  # the checkpoint's ETag
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="audit-s3")

    @classmethod
    def open_for_writing(cls, url: str) -> Self:
        """Raises HaltError or RetryError: nobody can write there, or not safely."""
        store = cls(url)
        store._put(_PROBE, b"", {})
        if not store._refused(_PROBE, b"", {"IfNoneMatch": "*"}):
            # fork: a store that ignores conditions lets two exporters write
            reason = f"{store._url}: this store does not know conditional writes (If-None-Match)"
            raise HaltError(Code.AUDIT_INVALID, reason, field="log", hint="a newer one does, or use a folder")
        return store

    def read(self, name: str) -> bytes | None:
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            data: bytes = found["Body"].read()
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _ABSENT:
                return None
            raise self._failed(error) from error
        if name == CHECKPOINT:
            self._seen = found["ETag"]
        return data

    def write(self, pieces: Mapping[str, bytes]) -> None:
        self._check_alone()
        for done in [self._pool.submit(self._put, name, data, {}) for name, data in pieces.items()]:
            done.result()

    def _check_alone(self) -> None:
        """Raises HaltError where somebody else has committed: what lies there is theirs, and stays as it is."""
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._key(CHECKPOINT))["ETag"]
        except (ClientError, BotoCoreError) as error:
            if _code(error) not in _ABSENT:
                raise self._failed(error) from error
            found = None
        if found != self._seen:
            raise another_writer(self._url)

    def commit(self, checkpoint: bytes) -> None:
        condition = {"IfMatch": self._seen} if self._seen else {"IfNoneMatch": "*"}
        # ours, of a try whose answer was lost: reading it is what makes it the one that was seen
        if self._refused(CHECKPOINT, checkpoint, condition) and self.read(CHECKPOINT) != checkpoint:
            raise another_writer(self._url)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._client.delete_object(Bucket=self._bucket, Key=self._key(name))
            except (ClientError, BotoCoreError) as error:
                if _code(error) != "AccessDenied":  # whoever may not delete keeps a few small pieces more
                    raise self._failed(error) from error

    def close(self) -> None:
        self._pool.shutdown()

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _refused(self, name: str, data: bytes, condition: Mapping[str, str]) -> bool:
        """Write under a condition; true where it did not hold."""
        try:
            self._put(name, data, condition)
        except _ConditionError:
            return True
        return False

    def _put(self, name: str, data: bytes, condition: Mapping[str, str]) -> None:
        try:
            done = self._client.put_object(
                Bucket=self._bucket, Key=self._key(name), Body=data, ContentType="application/octet-stream", **condition
            )
        except (ClientError, BotoCoreError) as error:
            if condition and _code(error) in _TAKEN:
                raise _ConditionError from error
            raise self._failed(error) from error
        if name == CHECKPOINT:
            self._seen = done["ETag"]

    def _failed(self, error: Exception) -> InitiatorError:
        code = _code(error)
        reason = f"{self._url}: {code or type(error).__name__}"  # its text may quote addresses and keys
        if code in _FOR_A_PERSON or isinstance(error, _SETUP):
            return HaltError(Code.AUDIT_INVALID, reason, field="log", hint=_HINT)
        return RetryError(Code.AUDIT_UNAVAILABLE, reason, field="log", hint=_HINT)


class _ConditionError(Exception):
    """The condition of a write did not hold; nothing was written."""


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
