"""The daemon as a process: no core, no look into its memory, no place that it may write to."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initiator import keyfile
from initiator.client import InitiatorClient
from initiator.dev import servers
from tests.support.deployment import CHAIN_CODE, Deployment
from tests.support.environment import environment

CANARY = "canary-3b1f0c"
# Root without its capabilities is as any user is towards his own processes.
NO_PTRACE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Deployment]:
    found = Deployment(tmp_path, "plain-nkey", {"payments": {}})
    found.generate()
    async with found.serving():
        yield found


async def start(one: Deployment, *prefix: str, **more: object) -> asyncio.subprocess.Process:
    path = one.write_settings(**more)
    words = [*prefix, sys.executable, "-m", "initiator", "--config", str(path), "run"]

    def cores_allowed() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    with (one.folder / "initiator.log").open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            *words, cwd=one.folder, stdout=output, stderr=output, preexec_fn=cores_allowed,
            env=environment() | {"INITIATOR_LOG__LEVEL": "info", "AWS_SECRET_ACCESS_KEY": CANARY},
        )  # fmt: skip
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(servers.is_ready, f"{one.http}/readyz"):
            assert child.returncode is None, (one.folder / "initiator.log").read_text()[-2000:]
            await asyncio.sleep(0.05)
    return child


def look(pid: int, what: str) -> bytes | None:
    """What another process of the same user reads there; None where it may not."""
    script = f"import os; f = os.open('/proc/{pid}/{what}', os.O_RDONLY); print(os.read(f, 200000))"
    done = subprocess.run([*NO_PTRACE, sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("allowed", [False, True])
async def test_no_other_process_of_the_user_reads_its_memory(allowed: bool, one: Deployment) -> None:
    if NO_PTRACE and shutil.which("setpriv") is None:
        pytest.skip("root looks everywhere, and there is no setpriv to take that away")
    child = await start(one, *NO_PTRACE, process={"core_dumps": allowed})
    try:
        seen = await asyncio.to_thread(look, child.pid, "environ")
        if allowed:  # the control: without the mark it would be read
            assert seen is not None
            assert CANARY.encode() in seen
            assert "process.memory_open" in (one.folder / "initiator.log").read_text()
        else:
            assert seen is None
            assert await asyncio.to_thread(look, child.pid, "maps") is None
    finally:
        await servers.stop(child)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_nor_that_of_an_authorizer_or_of_the_audits_exporter(one: Deployment) -> None:
    """They hold keys, too."""
    if NO_PTRACE and shutil.which("setpriv") is None:
        pytest.skip("root looks everywhere, and there is no setpriv to take that away")
    risk, audit = one.folder / "risk.key", one.folder / "audit.key"
    risk.touch(mode=0o600)
    risk.write_text(keyfile.generate("ed25519")[0])
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "initiator", "audit", "key", str(audit), "--name", "a"],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    async with one.daemon(), one.authorizer("risk", risk, NO_PTRACE) as authorizer:
        assert await asyncio.to_thread(look, authorizer.pid, "environ") is None
        path = one.write_settings(nats=one.login("auditor-max"))
        words = ["audit", "export", str(one.folder / "log"), "--key-file", str(audit), "--follow"]
        command = [*NO_PTRACE, sys.executable, "-m", "initiator", "--config", str(path), *words]
        async with servers.process(command, output=subprocess.DEVNULL, environment=environment()) as exporter:
            async with asyncio.timeout(20):
                while not (one.folder / "log" / ".lock").exists():
                    await asyncio.sleep(0.05)
            assert await asyncio.to_thread(look, exporter.pid, "environ") is None


@pytest.mark.skipif(sys.platform != "linux", reason="the exit status and the place of a core are Linux's")
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_daemon_that_is_aborted_leaves_no_core(allowed: bool, one: Deployment) -> None:
    if allowed and not cores_can_be_seen():
        pytest.skip("this machine makes no core files, or elsewhere: the control cannot be made")
    child = await start(one, process={"core_dumps": allowed})
    child.send_signal(signal.SIGABRT)
    assert await child.wait() == -signal.SIGABRT
    assert bool(list(one.folder.glob("core*"))) is allowed


def cores_can_be_seen() -> bool:
    """Whether this machine makes core files, and in the folder of who dies."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and not pattern.startswith(("/", "|"))


def has_mounts_of_its_own() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


READ_ONLY = """
set -e
awk '{print $5}' /proc/self/mountinfo | sort -u | while read -r place; do
  mount -o remount,bind,ro "$place" 2>/dev/null || mount --bind "$place" "$place" && mount -o remount,bind,ro "$place"
done
for place in "$0" /tmp /var/tmp /dev/shm /; do
  if touch "$place/written" 2>/dev/null; then echo "$place can be written" >&2; exit 97; fi
done
exec "$@"
"""
# As the shipped unit has it: no capabilities, no way to new ones, and no memory that is both written and run.
SHUT = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1
NO_WRITE_EXECUTE = f"""
import ctypes, mmap, os, sys
if ctypes.CDLL(None).prctl({_PR_SET_MDWE}, {_REFUSE_EXEC_GAIN}, 0, 0, 0) == 0:
    try:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        sys.exit(98)
    except PermissionError:
        pass
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_it_runs_where_nothing_can_be_written(one: Deployment) -> None:
    """Every mount of its own namespace is read-only: the root, /tmp, /dev/shm and the folder of its settings."""
    if not has_mounts_of_its_own():
        pytest.skip("mounts of its own need root and unshare; CI has both")
    async with one.nodes():
        shut = (*SHUT, sys.executable, "-c", NO_WRITE_EXECUTE)
        child = await start(one, "unshare", "-m", "sh", "-c", READ_ONLY, str(one.folder), *shut)
        try:
            options = one.options("payments")
            urls = options.pop("servers")
            async with InitiatorClient.connect(urls, client="payments", chain_code=CHAIN_CODE, **options) as client:
                await client.keygen("w-1")
                await client.sign("w-1", b"pay", tx_id="tx_1", key_type="ed25519")
        finally:
            assert await servers.stop(child) == 0
