"""The audit log of a development stack, made and checked by the product's own commands."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from initiator.dev.stack import Stack
from initiator.errors import Code, HaltError

NAME = "initiator-dev"


class AuditTrail:
    """One stack's.

    Args:
        folder: where the log lies.
    """

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._key_path = stack.folder / "audit.key"
        self._key = ""

    async def _run(self, *arguments: str, fails: bool = False) -> str:
        command = [sys.executable, "-m", "initiator", "--config", str(self._stack.config_path), "audit", *arguments]
        child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=self._stack.environment)
        output, errors = await child.communicate()
        if (child.returncode != 0) is not fails:
            raise HaltError(Code.AUDIT_INVALID, f"audit {arguments[0]}: {(output + errors).decode()[-500:].strip()}")
        return output.decode()

    async def export(self) -> int:
        """Export all that there is; returns how many entries."""
        self._key = (await self._run("key", str(self._key_path), "--name", NAME)).strip()
        said = await self._run("export", str(self._folder), "--key-file", str(self._key_path), "--json")
        return int(json.loads(said.splitlines()[-1])["size"])

    def _verify(self, folder: Path) -> list[str]:
        key = self._stack.public_key
        pin = ["--initiator-key", key.hex, "--algorithm", key.algorithm] if key else []
        return ["verify", str(folder), "--key", self._key, *pin]

    def command(self, folder: Path) -> str:
        """What somebody types to verify it."""
        return f"initiator audit {' '.join(self._verify(folder))}"

    async def verify(self, folder: Path) -> list[str]:
        """Verify a log; returns what was found wrong."""
        broken = folder != self._folder
        said = json.loads(await self._run(*self._verify(folder), "--json", fails=broken))
        return [_place(one) + str(one["what"]) for one in said["findings"]]

    async def prove(self, wallet: str) -> None:
        """Prove a keygen, and check the proof."""
        proof = self._stack.folder / "proof.json"
        proof.write_text(await self._run("prove", str(self._folder), "keygen", wallet, "--key", self._key))
        await self._run("check-proof", str(proof), "--key", self._key)

    def with_a_changed_byte(self) -> Path:
        """A copy of the log in which one byte is another one."""
        copy = self._stack.folder / "audit-log-changed"
        shutil.copytree(self._folder, copy)
        bundle = next((copy / "tile" / "entries").rglob("0*"))
        bundle = next(bundle.iterdir()) if bundle.is_dir() else bundle
        data = bytearray(bundle.read_bytes())
        data[len(data) // 2] ^= 1
        bundle.write_bytes(data)
        return copy


def _place(finding: Mapping[str, Any]) -> str:
    return "" if finding.get("entry") is None else f"entry {finding['entry']}: "
