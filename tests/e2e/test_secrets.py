"""A canary in every place for a secret, every error provoked that could quote it, and no canary in any output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from initiator.config.load import load_settings, section_of
from initiator.config.schema import Settings
from initiator.dev import servers
from tests.support import command
from tests.support.environment import environment

CANARY = "canary7f3a91c5e2"
DEAD = "nats://127.0.0.1:1"
MORE = {
    # so that sections whose parts come together are whole
    "signer.kms.access_key_id": {"signer.kms.secret_access_key": CANARY},
    "signer.kms.secret_access_key": {"signer.kms.access_key_id": CANARY},
    "signer.kms.session_token": {"signer.kms.access_key_id": CANARY, "signer.kms.secret_access_key": CANARY},
}


def secret_fields(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        inner = section_of(info.annotation)
        if SecretStr in (info.annotation, *get_args(info.annotation)):
            found.append(f"{prefix}{name}")
        elif inner is not None and name != "clients" and "tuple" not in str(info.annotation):
            found += secret_fields(inner, f"{prefix}{name}.")
    return found


FIELDS = secret_fields()


def variable(field: str) -> str:
    return f"INITIATOR_{field.upper().replace('.', '__')}"


def said(*words: str, **variables: str) -> str:
    """Everything that the command says, whatever comes of it, with all its words."""
    env = {k: v for k, v in environment().items() if not k.startswith("AWS_")} | variables
    done = command.run("--debug", "--set", "log.level=debug", *words, env=env)
    assert done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_fields_are_found() -> None:
    assert len(FIELDS) >= 8
    assert {"nats.password", "mpcium.nats.token", "signer.local.passphrase"} <= set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_no_setting_shows_its_secret(field: str) -> None:
    given = {variable(name): value for name, value in ({field: CANARY} | MORE.get(field, {})).items()}
    settings = load_settings(None, {}, given).settings
    shown = [repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"]
    shown += [said("config", "show", **given), said("config", "show", "--json", **given)]
    assert not any(CANARY in text for text in shown)


@pytest.mark.parametrize("field", FIELDS)
def test_a_secret_in_the_wrong_place_is_not_quoted(field: str, tmp_path: Path) -> None:
    path = tmp_path / "initiator.yaml"
    *sections, last = field.split(".")
    shown = []
    for value in (CANARY, [CANARY], {CANARY: CANARY}, f"{CANARY}: [}}"):
        content: dict[str, Any] = {last: value}
        for section in reversed(sections):
            content = {section: content}
        path.write_text(json.dumps(content))
        shown.append(said("--config", str(path), "config", "check"))
    path.write_text(f"nats: {{password: {CANARY}\n")  # no YAML
    shown.append(said("--config", str(path), "config", "check"))
    shown.append(said("--set", f"{field}={CANARY}", "config", "check"))
    shown.append(said("config", "check", **{f"{variable(field)}X": CANARY}))
    shown.append(said("config", "check", **{f"{variable(field)}__X": CANARY}))
    shown.append(said("config", "check", **{variable(sections[0]): json.dumps({last: [CANARY]})}))
    assert [text for text in shown if CANARY in text] == []


@pytest.mark.parametrize("field", ["nats.servers", "mpcium.nats.servers", "signer.kms.endpoint_url"])
def test_a_password_in_an_address_is_not_shown(field: str) -> None:
    scheme = "http" if "url" in field else "nats"
    address = f"{scheme}://user:{CANARY}@127.0.0.1:1"
    given = {variable(field): address if "url" in field else json.dumps([address])}
    given |= {"INITIATOR_SIGNER__KMS__KEY_ID": "alias/x", "INITIATOR_SIGNER__KMS__REGION": "eu-central-1"}
    settings = load_settings(None, {}, given).settings
    shown = [repr(settings), str(settings), said("config", "show", **given), said("config", "show", "--json", **given)]
    shown += [said("check", **given)]
    assert [text for text in shown if CANARY in text] == []


@pytest.mark.parametrize("part", ["nats", "mpcium.nats"])
@pytest.mark.parametrize("kind", ["password_file", "token_file", "creds_file", "nkey_seed_file"])
async def test_a_refused_login_is_not_quoted(part: str, kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(
        f"-----BEGIN NATS USER JWT-----\n{CANARY}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\nSU{CANARY.upper()}\n------END USER NKEY SEED------\n"
        if kind == "creds_file"
        else CANARY
    )
    ports = json.dumps(str(tmp_path))
    config = f'listen: "127.0.0.1:-1"\nports_file_dir: {ports}\nauthorization {{ user: a, password: b }}\n'
    async with servers.nats_server(config, tmp_path) as url:
        words = [f"--set={part}.servers=[{url}]", f"--set={part}.{kind}={secret}"]
        if kind == "password_file":
            words.append(f"--set={part}.user=a")
        text = said(*words, "check")
        assert "BUS_DENIED" in text or "CONFIG_INVALID" in text
        assert CANARY.lower() not in text.lower()


def test_static_credentials_are_not_quoted_by_who_cannot_use_them() -> None:
    given = {variable(f"signer.kms.{name}"): CANARY for name in ("access_key_id", "secret_access_key", "session_token")}
    words = ["--set=signer.kms.key_id=alias/x", "--set=signer.kms.region=eu-central-1",
             "--set=signer.kms.endpoint_url=http://127.0.0.1:1"]  # fmt: skip
    for asked in (["check"], ["key", "show"]):
        assert CANARY not in said(*words, *asked, **given)


def test_a_passphrase_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x.key.age"
    path.write_bytes(b"age-encryption.org/v1\n-> scrypt AAAA 18\nrubbish\n")
    given = {variable("signer.local.passphrase"): CANARY}
    words = ["--set=signer.type=local", f"--set=signer.local.path={path}"]
    assert CANARY not in said(*words, "key", "show", **given)


def test_a_key_file_that_is_broken_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    path.write_text(f"{CANARY}\n")
    assert CANARY not in said("--set=signer.type=local", f"--set=signer.local.path={path}", "key", "show")
