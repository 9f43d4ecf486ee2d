"""The shipped unit: what it holds shut, and what systemd itself says of it where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "initiator.service"


def directives() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in UNIT.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[section][name].append(value)
    return found


def test_it_has_a_user_of_its_own_no_rights_and_nothing_to_write_to() -> None:
    service = directives()["Service"]
    wanted = {
        "DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
        "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
        "MemoryDenyWriteExecute": "yes", "LimitCORE": "0", "UMask": "0077", "Restart": "always",
        "ProtectProc": "invisible", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    }  # fmt: skip
    assert {name: service[name] for name in wanted} == {name: [value] for name, value in wanted.items()}
    assert not {"ReadWritePaths", "StateDirectory", "CacheDirectory", "LogsDirectory", "EnvironmentFile"} & set(service)
    assert service["SystemCallFilter"][0] == "@system-service"


def test_secrets_are_credentials_and_no_variables() -> None:
    service = directives()["Service"]
    assert [value.partition(":")[0] for value in service["LoadCredential"]] == ["nats", "nodes"]
    assert service["Environment"] == ["PYTHONDONTWRITEBYTECODE=1"]


def test_it_waits_for_the_drain() -> None:
    from initiator.config.schema import WorkerSettings

    limit_s = int(directives()["Service"]["TimeoutStopSec"][0].removesuffix("s"))
    assert limit_s > WorkerSettings().drain_timeout_s + 10


def test_systemd_takes_it_and_calls_it_well_shut(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd here")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    verified = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    command = [tool, "security", "--offline=yes", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
