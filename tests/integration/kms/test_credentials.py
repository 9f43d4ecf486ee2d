"""Credentials: renewed in the background, used until they truly expire, and refused ones renewed once."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from initiator.errors import Code, RetryError
from initiator.kms import KmsSigner, credentials
from initiator.kms.errors import TooLateError
from initiator.metrics import Metrics
from tests.contract.test_signer import kms_settings
from tests.support.kms_stub import Error, Key, KmsStub, kms_stub

STATIC: dict[str, object] = {"access_key_id": None, "secret_access_key": None}


@pytest.fixture
def stub() -> Iterator[KmsStub]:
    with kms_stub() as running:
        yield running


@pytest.fixture
def key(stub: KmsStub) -> Key:
    return stub.add()


class Source:
    """A credential process, as AWS's profiles know it: each run gives other keys, from a file that a test writes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answer = folder / "answer.json"
        self._delay = folder / "delay"
        self.runs = folder / "runs"
        script = folder / "source"
        script.write_text(
            f"#!{sys.executable}\nimport pathlib, sys, time\nruns = pathlib.Path({str(self.runs)!r})\n"
            f"runs.write_text((runs.read_text() if runs.exists() else '') + 'x')\n"
            f"delay = pathlib.Path({str(self._delay)!r})\n"
            f"time.sleep(float(delay.read_text()) if delay.exists() else 0)\n"
            f"sys.stdout.write(pathlib.Path({str(self._answer)!r}).read_text())\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        config = folder / "config"
        config.write_text(f"[default]\ncredential_process = {script}\n")
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def gives(self, access_key: str, lasts_s: float) -> None:
        until = (datetime.now(UTC) + timedelta(seconds=lasts_s)).isoformat()
        self._answer.write_text(
            json.dumps({"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": "s", "Expiration": until})
        )

    def hangs(self, seconds: float) -> None:
        self._delay.write_text(str(seconds))

    def fails(self) -> None:
        self._answer.unlink()

    @property
    def count(self) -> int:
        return len(self.runs.read_text()) if self.runs.exists() else 0


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(tmp_path, monkeypatch)


@asynccontextmanager
async def connected(stub: KmsStub, key: Key, metrics: Metrics | None = None) -> AsyncIterator[KmsSigner]:
    settings = kms_settings(stub.url, key.arn, retry_base_s=0.01, **STATIC)
    signer = await KmsSigner.connect(settings, metrics=metrics)
    try:
        yield signer
    finally:
        await signer.close()


def ends_in_s(metrics: Metrics) -> float:
    name, labels = "initiator_credentials_expiry_timestamp_seconds", {"credential": "kms"}
    return (metrics.registry.get_sample_value(name, labels) or 0.0) - time.time()


async def test_credentials_are_renewed_before_they_expire_and_nobody_waits(
    stub: KmsStub, key: Key, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(credentials.SnapshotCredentials.keep_fresh, "__defaults__", (0.05,))
    source.gives("FIRST", lasts_s=300)  # inside the ten minutes before the expiry
    metrics = Metrics()
    async with connected(stub, key, metrics) as signer:
        assert 290 < ends_in_s(metrics) <= 300
        source.gives("SECOND", lasts_s=3600)
        async with asyncio.timeout(10):
            while stub.access_keys[-1] != "SECOND":
                await signer.sign(b"m")
                await asyncio.sleep(0.02)
        renewals = source.count
        await asyncio.sleep(0.3)
        assert source.count == renewals  # they last: nobody renews them again
        assert 3580 < ends_in_s(metrics) <= 3600


async def test_a_renewal_that_fails_leaves_what_still_holds(
    stub: KmsStub, key: Key, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials.SnapshotCredentials.keep_fresh, "__defaults__", (0.05,))
    monkeypatch.setattr(credentials, "RETRY_AFTER_S", 0.1)
    source.gives("FIRST", lasts_s=300)
    async with connected(stub, key) as signer:
        source.fails()
        before = source.count
        async with asyncio.timeout(10):
            while source.count < before + 2:
                await asyncio.sleep(0.02)
        await signer.sign(b"m")
        assert stub.access_keys[-1] == "FIRST"
        assert signer.health().ok


async def test_an_expired_token_is_renewed_once_for_all_who_wait(stub: KmsStub, key: Key, source: Source) -> None:
    source.gives("FIRST", lasts_s=3600)
    async with connected(stub, key) as signer:
        before = source.count
        source.gives("SECOND", lasts_s=3600)
        stub.script.extend([Error("ExpiredTokenException")] * 4)
        await asyncio.gather(*(signer.sign(b"m") for _ in range(4)))
        assert source.count - before <= 2
        assert stub.access_keys[-1] == "SECOND"


async def test_credentials_that_are_refused_again_are_told(stub: KmsStub, key: Key, source: Source) -> None:
    source.gives("FIRST", lasts_s=3600)
    async with connected(stub, key) as signer:
        stub.script.extend([Error("ExpiredTokenException")] * 2)
        with pytest.raises(RetryError) as error:
            await signer.sign(b"m", deadline=asyncio.get_running_loop().time() + 10)
        assert error.value.code is Code.KMS_CREDENTIALS
        assert signer.health().code is Code.KMS_CREDENTIALS
        await signer.sign(b"m")
        assert signer.health().ok


async def test_renewals_do_not_follow_each_other_where_they_do_not_help(
    stub: KmsStub, key: Key, source: Source
) -> None:
    source.gives("FIRST", lasts_s=3600)
    async with connected(stub, key) as signer:
        before = source.count
        stub.script.extend([Error("ExpiredTokenException")] * 7)
        for _ in range(6):
            with pytest.raises(RetryError) as error:
                await signer.sign(b"m")
            assert error.value.code is Code.KMS_CREDENTIALS
        assert source.count == before + 1
        await signer.sign(b"m")


async def test_a_renewal_that_hangs_holds_a_request_no_longer_than_its_deadline(
    stub: KmsStub, key: Key, source: Source
) -> None:
    source.gives("FIRST", lasts_s=3600)
    async with connected(stub, key) as signer:
        source.hangs(2.0)
        stub.script.append(Error("ExpiredTokenException"))
        began = asyncio.get_running_loop().time()
        with pytest.raises(TooLateError):
            await signer.sign(b"m", deadline=began + 0.5)
        assert asyncio.get_running_loop().time() - began < 1.8


async def test_a_clock_that_is_off_is_named_with_awss_own_time(stub: KmsStub, key: Key, source: Source) -> None:
    source.gives("FIRST", lasts_s=3600)
    async with connected(stub, key) as signer:
        fault = Error("InvalidSignatureException", 403, "Signature expired: now is later", clock_s=86_400 * 2)
        stub.script.extend([fault] * 2)
        with pytest.raises(RetryError) as error:
            await signer.sign(b"m")
        assert error.value.code is Code.KMS_CREDENTIALS
        tomorrow = datetime.now(UTC) + timedelta(days=2)
        assert f"{tomorrow:%d %b %Y}" in (error.value.hint or "")


ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Sts(BaseHTTPRequestHandler):
    """STS, whose first answer is that it is away."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        away = type(self).asked == 1
        body = b"" if away else ASSUMED.encode()
        self.send_response(503 if away else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


async def test_where_one_regions_sts_is_away_the_next_ones_is_asked(
    stub: KmsStub, key: Key, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a Region that is down takes the credentials with it, and no other Region could sign."""
    (tmp_path / "token").write_text("a token")
    (tmp_path / "config").write_text("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sts)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name, value in {
        "ROLE_ARN": "arn:aws:iam::111122223333:role/initiator",
        "WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "ENDPOINT_URL_STS": f"http://127.0.0.1:{server.server_port}",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    regions = [{"region": name, "key_id": key.key_id, "endpoint_url": stub.url} for name in ("eu-west-1", "eu-west-2")]
    settings = kms_settings("", "", **STATIC, region=None, key_id=None, endpoint_url=None, regions=regions)
    try:
        signer = await KmsSigner.connect(settings)
        await signer.sign(b"m")
        await signer.close()
        assert (Sts.asked, stub.access_keys[-1]) == (2, "ASSUMED")
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def test_without_any_credentials_the_start_says_where_they_were_looked_for(
    stub: KmsStub, key: Key, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(RetryError) as error:
        await KmsSigner.connect(kms_settings(stub.url, key.arn, **STATIC))
    assert error.value.code is Code.KMS_CREDENTIALS
    assert "environment, profile, web identity" in (error.value.hint or "")
