"""Logins with NKeys and with credentials files, of the daemon and of its clients."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from initiator.bus.connection import Connection
from initiator.client import DeniedError, InitiatorClient
from initiator.config.schema import NatsSettings
from initiator.dev import servers
from initiator.errors import HaltError
from tests.support.nats_logins import user_key, with_operator


def serving(config: str, folder: Path) -> AbstractAsyncContextManager[str]:
    """A server with these logins; yields its URL."""
    return servers.nats_server(f'listen: "127.0.0.1:-1"\nports_file_dir: {json.dumps(str(folder))}\n{config}', folder)


async def test_the_seed_of_an_nkey(tmp_path: Path) -> None:
    key, stranger = user_key(), user_key()
    files = {name: tmp_path / f"{name}.nk" for name in ("known", "stranger")}
    for name, one in (("known", key), ("stranger", stranger)):
        files[name].touch(mode=0o600)
        files[name].write_bytes(one.seed)
    async with serving(f"authorization {{ users: [{{ nkey: {key.name} }}] }}", tmp_path) as url:
        connection = Connection(NatsSettings(servers=(url,), nkey_seed_file=str(files["known"])), "test")
        await connection.open()
        await connection.close()
        async with InitiatorClient.connect(url, client="alice", nkeys_seed=str(files["known"])):
            pass
        with pytest.raises(HaltError) as refused:
            await Connection(NatsSettings(servers=(url,), nkey_seed_file=str(files["stranger"])), "test").open()
        assert refused.value.code == "BUS_DENIED"
        with pytest.raises(DeniedError) as denied:
            async with InitiatorClient.connect(url, client="alice", nkeys_seed=str(files["stranger"])):
                pass
        assert denied.value.code == "BUS_DENIED"


async def test_a_credentials_file(tmp_path: Path) -> None:
    config, creds = with_operator(tmp_path)
    async with serving(config, tmp_path) as url:
        connection = Connection(NatsSettings(servers=(url,), creds_file=str(creds)), "test")
        await connection.open()
        await connection.close()
        async with InitiatorClient.connect(url, client="alice", user_credentials=str(creds)):
            pass


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff\xfe", b"-----BEGIN NATS USER JWT-----\nx\n"])
async def test_a_file_that_holds_no_login(tmp_path: Path, content: bytes) -> None:
    config, _ = with_operator(tmp_path)
    broken = tmp_path / "broken.creds"
    broken.write_bytes(content)
    async with serving(config, tmp_path) as url:
        for setting in ("creds_file", "nkey_seed_file"):
            settings = NatsSettings.model_validate({"servers": [url], setting: str(broken)})
            with pytest.raises(HaltError) as halted:
                await Connection(settings, "test").open()
            assert halted.value.code in ("CONFIG_INVALID", "BUS_DENIED")
            assert "rubbish" not in str(halted.value)
        for option in ("user_credentials", "nkeys_seed"):
            login: dict[str, Any] = {option: str(broken)}
            with pytest.raises(DeniedError) as denied:
                async with InitiatorClient.connect(url, client="alice", **login):
                    pass
            assert denied.value.code == "BUS_DENIED"


async def test_a_client_that_may_not_listen_is_told_so(tmp_path: Path) -> None:
    config, creds = with_operator(tmp_path, sub={"allow": ["_INBOX.>"]})
    async with serving(config, tmp_path) as url:
        with pytest.raises(DeniedError, match="does not let us listen to initiator") as denied:
            async with InitiatorClient.connect(url, client="alice", user_credentials=str(creds)):
                pass
        assert denied.value.code == "BUS_DENIED"
