"""The examples in other languages do what they say, where their toolchain is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from initiator.dev.servers import NatsHost, NatsProcess
from initiator.dev.stack import Stack

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SHOWN = r"keygen w_\w+.*?ed25519 public key \S+.*?sign tx_\w+.*?signature \S+"


@pytest.fixture
def nats_host() -> NatsHost:
    """One is enough: what is tested is what a reader types."""
    return NatsProcess()


def toolchain(*programs: str) -> None:
    """Skips where one is missing."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def shell(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False, env=os.environ | environment
    )


def prepared(name: str, folder: Path, *command: str) -> Path:
    """A copy of an example with its libraries; skips where they cannot be had (no network)."""
    copy = shutil.copytree(EXAMPLES / name, folder / name)
    try:
        done = shell(*command, cwd=copy)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)}: no answer from its registry")
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1][:200]}")
    return copy


async def first_signature(stack: Stack, cwd: Path, *command: str) -> None:
    login = {"NATS_URL": stack.nats_url, "ALICE_USER": "alice", "ALICE_PASSWORD": stack.password("alice")}
    done = await asyncio.to_thread(shell, *command, cwd=cwd, **login)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(SHOWN, done.stdout, re.DOTALL), done.stdout


async def test_the_nats_command_line(stack: Stack) -> None:
    toolchain("nats", "jq")
    await first_signature(stack, EXAMPLES / "shell", "./first_signature.sh")


async def test_go(stack: Stack, tmp_path: Path) -> None:
    toolchain("go")
    copy = await asyncio.to_thread(prepared, "go", tmp_path, "go", "mod", "download")
    await first_signature(stack, copy, "go", "run", ".")


async def test_typescript(stack: Stack, tmp_path: Path) -> None:
    toolchain("node", "npm")
    copy = await asyncio.to_thread(prepared, "typescript", tmp_path, "npm", "ci", "--no-audit", "--no-fund")
    await first_signature(stack, copy, "npm", "start", "--silent")
