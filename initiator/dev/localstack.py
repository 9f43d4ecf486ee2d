"""LocalStack's KMS without a container: a virtual environment of its own, made once and kept in a cache.

Its dependencies clash with ours, so it never shares an environment with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from initiator.dev.servers import free_port, process, wait_for_http
from initiator.errors import Code, HaltError

# 4.7 runs on Python 3.11 and 3.12, 2026.3 on 3.13; the pins beside them are what these releases start with.
_RELEASE = "4.7.0" if sys.version_info < (3, 13) else "2026.3.0"
_REQUIREMENTS = (
    f"localstack-core[runtime]=={_RELEASE}",
    "cbor2==5.7.1",
    "pyopenssl==25.1.0",
    "cryptography==45.0.7",
    "service_identity<25",
)


def cache_folder() -> Path:
    """Where the environment is kept: `INITIATOR_TEST_CACHE`, or the user's cache."""
    configured = os.environ.get("INITIATOR_TEST_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "initiator"


def python() -> Path:
    """The interpreter of LocalStack's environment, made if it is missing (a minute, once).

    Raises:
        HaltError: it cannot be installed here.
    """
    folder = cache_folder() / f"localstack-{_RELEASE}-py{sys.version_info[0]}{sys.version_info[1]}"
    interpreter = folder / "bin" / "python"
    if (folder / "complete").exists():
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    commands = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(interpreter), "-m", "pip", "install", "--quiet", *_REQUIREMENTS],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise HaltError(
                Code.KMS_UNAVAILABLE, f"LocalStack cannot be installed: {last[:200]}", hint="use --kms moto"
            )
    (folder / "complete").touch()
    return interpreter


@contextlib.asynccontextmanager
async def localstack(folder: Path) -> AsyncIterator[str]:
    """LocalStack's KMS over HTTP; yields the endpoint URL.

    Raises:
        HaltError: it cannot be installed here.
    """
    interpreter = await asyncio.to_thread(python)
    port = free_port()
    state = folder / "localstack"
    state.mkdir()
    environment = dict(os.environ) | {
        "SERVICES": "kms",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "DNS_ADDRESS": "0",
        "FILESYSTEM_ROOT": str(state / "root"),
        "LOCALSTACK_VOLUME_DIR": str(state / "volume"),
    }
    command = [str(interpreter), "-m", "localstack.runtime.main"]
    with (folder / "localstack.log").open("ab") as output:
        async with process(command, output=output, environment=environment) as child:
            url = f"http://127.0.0.1:{port}"
            await wait_for_http(f"{url}/_localstack/health", child)
            yield url
