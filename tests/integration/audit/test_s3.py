"""A log in S3: moto's over a real socket, and a store that does not look at conditions."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import pytest_asyncio

from initiator.audit.checks import Auditor
from initiator.audit.exporter import Exporter
from initiator.audit.reading import LogReader
from initiator.audit.s3 import S3Store
from initiator.audit.store import CHECKPOINT, FileStore
from initiator.core import tlog
from initiator.dev.servers import moto_server
from initiator.errors import Code, HaltError, RetryError
from tests.support import command
from tests.support.environment import environment
from tests.support.governed import KEYGEN, Governed
from tests.support.harness import running

from .conftest import ORIGIN, Place, many

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "canary-of-s3"
BUCKET = "trail"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def endpoint(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with moto_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """AWS's own variables, and a bucket."""
    variables = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client: Any = boto3.session.Session(region_name="us-east-1").client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    return variables


@pytest.fixture
def url(aws: dict[str, str], request: pytest.FixtureRequest) -> str:
    """A place of its own in it."""
    return f"s3://{BUCKET}/{request.node.name}/log"


async def more(place: Place, folder: Path, count: int) -> None:
    """So many wallets more on record."""
    governed = Governed(place.server, folder)
    governed.write([KEYGEN])
    async with running(governed.app()):
        await many(place.server, count)


async def export(place: Place, store: S3Store) -> Exporter:
    exporter = Exporter(place.js, store, place.key, ORIGIN)
    while await exporter.export():
        pass
    return exporter


def verified(place: Place, url: str) -> tlog.Checkpoint:
    reader = LogReader(S3Store(url), place.log_key)
    report = Auditor(reader, [place.initiator]).check()
    assert not [one for one in report.findings if "initiator" not in one.what]
    return reader.checkpoint


def listed(url: str) -> set[str]:
    """What lies there."""
    client: Any = boto3.session.Session().client("s3")
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    return {one["Key"].removeprefix(f"{prefix}/") for page in pages for one in page["Contents"]}


async def test_the_log_is_the_same_as_in_a_folder(place: Place, url: str, tmp_path: Path) -> None:
    store = S3Store.open_for_writing(url)
    await export(place, store)
    store.close()
    await more(place, tmp_path, 3)
    again = S3Store.open_for_writing(url)  # goes on where the other one ended
    await export(place, again)
    again.close()
    await place.export()
    assert verified(place, url) == place.reader().checkpoint
    here = listed(url) - {".conditional-writes"}
    there = {str(path.relative_to(place.folder)) for path in place.folder.rglob("*") if path.is_file()} - {".lock"}
    assert here == there  # nothing is left of what was overtaken


async def test_of_two_exporters_one_stops_and_the_log_stays_whole(place: Place, url: str, tmp_path: Path) -> None:
    first = S3Store.open_for_writing(url)
    one = await export(place, first)
    second = S3Store.open_for_writing(url)
    other = Exporter(place.js, second, place.key, ORIGIN)
    await more(place, tmp_path, 2)
    await other.export()
    before = verified(place, url)
    await more(place, tmp_path, 1)
    with pytest.raises(HaltError, match="another exporter writes there"):
        await one.export()
    assert verified(place, url) == before


async def test_a_checkpoint_that_came_between_is_not_replaced(place: Place, url: str) -> None:
    """The narrowest race: the other one commits after this one has looked."""

    class Late(S3Store):
        def commit(self, checkpoint: bytes) -> None:
            other = S3Store.open_for_writing(url)
            assert other.read(CHECKPOINT) is None
            other.commit(b"the other one's")
            super().commit(checkpoint)

    late = Late.open_for_writing(url)
    with pytest.raises(HaltError, match="another exporter writes there"):
        await Exporter(place.js, late, place.key, ORIGIN).export()
    assert S3Store(url).read(CHECKPOINT) == b"the other one's"


@pytest.mark.parametrize("done", [True, False])
async def test_a_call_that_fails_is_made_again(done: bool, place: Place, url: str) -> None:
    """Some of them, whether they were done or not: the same log comes of it."""
    calls, failing = 0, {1, 4, 9, 16, 25}

    class Failing(S3Store):
        def _put(self, name: str, data: bytes, condition: Mapping[str, str]) -> str:
            nonlocal calls
            calls += 1
            fails = calls in failing
            try:
                return super()._put(name, data, condition) if done or not fails else ""
            finally:
                if fails:
                    raise RetryError(Code.AUDIT_UNAVAILABLE, "no answer")

    store = Failing(url)
    exporter, failures = Exporter(place.js, store, place.key, ORIGIN), 0
    for _ in range(40):
        try:
            if not await exporter.export() and exporter.sequence:
                break
        except RetryError:
            failures += 1
            store = Failing(url) if failures == 2 else store
            if failures == 2:  # and by one that begins anew, where there is a checkpoint already or none
                exporter = Exporter(place.js, store, place.key, ORIGIN)
    assert failures >= 2
    await place.export()
    assert verified(place, url) == place.reader().checkpoint


async def test_a_checkpoint_whose_answer_was_lost_is_its_own(place: Place, url: str) -> None:
    """It is there, nobody has said so, and the record has grown since."""

    class Lost(S3Store):
        lost = False

        def _put(self, name: str, data: bytes, condition: Mapping[str, str]) -> str:
            etag = super()._put(name, data, condition)
            if name == CHECKPOINT and not self.lost:
                self.lost = True
                raise RetryError(Code.AUDIT_UNAVAILABLE, "no answer")
            return etag

    exporter = Exporter(place.js, Lost(url), place.key, ORIGIN)
    with pytest.raises(RetryError):
        await exporter.export()
    await place.server.js.publish("initiator.reject.alice.keygen.900001.rejected", b"{}")
    assert await exporter.export() == 1
    assert verified(place, url).size == exporter.size
    edge = {piece for piece in listed(url) if ".p/" in piece}
    assert edge == set(tlog.edge_of(exporter.size))  # nothing is left of what was overtaken


async def test_whoever_comes_too_late_replaces_no_piece(url: str) -> None:
    """The other one has written between this one's look at the checkpoint and its own pieces."""
    other, full, partial = S3Store(url), "tile/entries/000", "tile/0/001.p/3"

    class Late(S3Store):
        def _ours(self) -> bytes | None:
            there = super()._ours()
            other.write({full: b"theirs", partial: b"as long"})
            return there

    late = Late(url)
    for name, data in ((full, b"others"), (partial, b"too new")):
        with pytest.raises(HaltError, match="is there already, with other bytes"):
            late.write({name: data})
    late.write({full: b"theirs", partial: b"as long"})
    assert (other.read(full), other.read(partial)) == (b"theirs", b"as long")


class _Careless(http.server.BaseHTTPRequestHandler):
    """Takes whatever is written, under all conditions but those that it knows."""

    protocol_version = "HTTP/1.1"
    known = frozenset[str]()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(412 if self.known & {name for name in self.headers if name.startswith("If-")} else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """As S3 answers whoever may not list: what is missing is denied."""
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def careless() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Careless)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_whoever_may_not_list_is_told_what_that_needs(
    careless: str, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", careless)
    with pytest.raises(HaltError) as denied:
        S3Store("s3://trail/log").read(CHECKPOINT)
    assert "s3:ListBucket" in str(denied.value.hint)


@pytest.mark.parametrize(("known", "ignored"), [((), "IfNoneMatch"), (("If-None-Match",), "IfMatch")])
async def test_a_store_that_ignores_conditions_is_refused(
    known: tuple[str, ...], ignored: str, careless: str, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", careless)
    monkeypatch.setattr(_Careless, "known", frozenset(known))
    with pytest.raises(HaltError, match=rf"does not know conditional writes \({ignored}\)"):
        S3Store.open_for_writing("s3://trail/log")


async def test_what_a_person_must_mend_is_told_without_secrets(
    aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HaltError, match="NoSuchBucket") as error:
        S3Store.open_for_writing("s3://nowhere/log")
    assert SECRET not in str(error.value)
    for wrong in ("s3://", "s3:///log", "https://x"):
        with pytest.raises(HaltError, match="expected s3://BUCKET/PREFIX"):
            S3Store(wrong)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RetryError) as nobody:
        S3Store("s3://trail/log").read(CHECKPOINT)
    assert nobody.value.code is Code.AUDIT_UNAVAILABLE


async def test_the_commands_take_it(place: Place, url: str, aws: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "initiator.yaml"
    config.write_text(json.dumps({"nats": {"servers": [place.server.url]}}))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return command.run("--config", str(config), "audit", *words, env=environment() | aws)

    key = tmp_path / "audit.key"
    vkey = run("key", str(key), "--name", ORIGIN).stdout.strip()
    exported = run("export", url, "--key-file", str(key), "--json")
    assert exported.returncode == 0, exported.stderr
    report = run("verify", url, "--key", vkey, "--json")
    assert json.loads(report.stdout)["size"] == json.loads(exported.stdout)["size"]
    proof = tmp_path / "proof"
    proof.write_text(run("prove", url, "sign", place.tx_id, "--key", vkey).stdout)
    assert run("check-proof", str(proof), "--key", vkey).returncode == 0
    assert run("export", "s3://nowhere/log", "--key-file", str(key)).returncode != 0


async def test_an_export_goes_on_from_the_right_edge_alone(place: Place, tmp_path: Path) -> None:
    """What lies further left may be elsewhere by now; a change at the edge is found before anything is signed."""
    folder = place.copy(tmp_path / "log")
    size = place.reader(folder).checkpoint.size
    assert size > tlog.TILE_WIDTH
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / tlog.tile_path("entries", 0)).unlink()
    await more(place, tmp_path, 1)
    exporter = Exporter(place.js, FileStore(folder), place.key, ORIGIN)
    assert await exporter.export() > 0
    edge = folder / tlog.tile_path("entries", exporter.size // tlog.TILE_WIDTH, exporter.size % tlog.TILE_WIDTH)
    edge.write_bytes(edge.read_bytes()[:-1] + b"!")
    with pytest.raises(Exception, match="last entries are not those of its tiles"):
        Exporter(place.js, FileStore(folder), place.key, ORIGIN)
