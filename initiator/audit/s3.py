"""A log in S3, or in what speaks its protocol: objects under a prefix.

There is no lock in S3. A checkpoint is replaced only if it is still the one that was seen (`If-Match`), and begun only
if there is none (`If-None-Match`): so of two exporters one stops. No other piece is ever replaced, or the one that
stops would change what the other one's checkpoint commits to. A store that takes such a write without looking would
let both go on; it is found out at the start.

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
_CONNECT_TIMEOUT_S = 5
_PROBE = ".conditional-writes"
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_ABSENT = ("NoSuchKey", "404")
_FOR_A_PERSON = (
    "NoSuchBucket", "AccessDenied", "403", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "ExpiredToken", "InvalidToken", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName",
    "KMS.DisabledException", "KMS.NotFoundException", "NotImplemented",
)  # fmt: skip
_SETUP = (NoCredentialsError, NoRegionError, ProfileNotFound, ValueError)
_DENIED = ("AccessDenied", "403")
_HINT = "credentials, Region and endpoint come from AWS's own chain (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3)"
_HINT_DENIED = "it needs s3:GetObject, s3:PutObject and s3:ListBucket: without the last, S3 denies what is only missing"
_HINT_OTHER = (
    "another exporter writes there; or one was killed, and the record has lost events since: if surely no other runs, "
    "this piece is in no checkpoint and may be moved away"
)


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
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 5},
            max_pool_connections=_AT_ONCE,
            connect_timeout=_CONNECT_TIMEOUT_S,
        )
        try:
            self._client: Any = boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:
            raise self._failed(error) from error
        self._seen: str | None = None  # the checkpoint's ETag
        self._tried: set[bytes] = set()  # checkpoints of ours that nobody has said are there, or are not
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="audit-s3")

    @classmethod
    def open_for_writing(cls, url: str) -> Self:
        """Raises HaltError or RetryError: nobody can write there, or not safely."""
        store = cls(url)
        store._put(_PROBE, b"", {})
        for name, value in (("IfNoneMatch", "*"), ("IfMatch", f'"{"0" * 32}"')):
            if not store._refused(_PROBE, b"", {name: value}):
                # fork: a store that ignores conditions lets two exporters write
                reason = f"{store._url}: this store does not know conditional writes ({name})"
                raise HaltError(Code.AUDIT_INVALID, reason, field="log", hint="a newer one does, or use a folder")
        return store

    def read(self, name: str) -> bytes | None:
        data, etag = self._get(name)
        if name == CHECKPOINT:
            self._seen = etag
        return data

    def _get(self, name: str) -> tuple[bytes | None, str | None]:
        """What is there, and its ETag."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            return found["Body"].read(), found["ETag"]
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _ABSENT:
                return None, None
            raise self._failed(error) from error

    def write(self, pieces: Mapping[str, bytes]) -> None:
        self._ours()
        for done in [self._pool.submit(self._put_new, name, data) for name, data in pieces.items()]:
            done.result()

    def _ours(self) -> bytes | None:
        """The checkpoint that is there. Raises HaltError where somebody else has committed it."""
        there, etag = self._get(CHECKPOINT)
        if etag != self._seen and there not in self._tried:
            raise another_writer(self._url)
        self._seen = etag  # of a try whose answer was lost, where it is news
        return there

    def _put_new(self, name: str, data: bytes) -> None:
        """A piece that is there already is the same, of a try before; what nobody wrote before nobody replaces."""
        if not self._refused(name, data, {"IfNoneMatch": "*"}):
            return
        there, _ = self._get(name)
        if there is None:
            raise self._under_way(name)
        if there != data:
            reason = f"{self._url}: {name} is there already, with other bytes"
            raise HaltError(Code.AUDIT_INVALID, reason, field="log", hint=_HINT_OTHER)

    def commit(self, checkpoint: bytes) -> None:
        self._tried.add(checkpoint)
        condition = {"IfMatch": self._seen} if self._seen else {"IfNoneMatch": "*"}
        try:
            self._seen = self._put(CHECKPOINT, checkpoint, condition)
        except _ConditionError:
            if self._ours() != checkpoint:
                raise self._under_way(CHECKPOINT) from None
        self._tried.clear()

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

    def _put(self, name: str, data: bytes, condition: Mapping[str, str]) -> str:
        """Write it; returns its ETag."""
        try:
            done = self._client.put_object(
                Bucket=self._bucket, Key=self._key(name), Body=data, ContentType="application/octet-stream", **condition
            )
        except (ClientError, BotoCoreError) as error:
            if condition and _code(error) in _TAKEN:
                raise _ConditionError from error
            raise self._failed(error) from error
        return str(done["ETag"])

    def _under_way(self, name: str) -> RetryError:
        return RetryError(Code.AUDIT_UNAVAILABLE, f"{self._url}: another write of {name} is under way", field="log")

    def _failed(self, error: Exception) -> InitiatorError:
        code = _code(error)
        reason = f"{self._url}: {code or type(error).__name__}"  # its text may quote addresses and keys
        if code in _FOR_A_PERSON or isinstance(error, _SETUP):
            hint = _HINT_DENIED if code in _DENIED else _HINT
            return HaltError(Code.AUDIT_INVALID, reason, field="log", hint=hint)
        return RetryError(Code.AUDIT_UNAVAILABLE, reason, field="log", hint=_HINT)


class _ConditionError(Exception):
    """The condition of a write did not hold; nothing was written."""


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
