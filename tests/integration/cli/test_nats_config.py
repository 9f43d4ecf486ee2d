"""`initiator nats-config` as its user types it, with wrong words too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from initiator.natsconfig import passwords
from tests.support.environment import environment
from tests.support.typed import initiator

CLIENTS: dict[str, Any] = {"clients": {"payments": {}}}


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_COST", 4)


def run(folder: Path, *words: str, settings: dict[str, Any] = CLIENTS) -> subprocess.CompletedProcess[str]:
    config = folder / "initiator.yaml"
    config.write_text(json.dumps(settings))
    return initiator("--config", str(config), "nats-config", *words)


def test_it_tells_what_it_made_and_what_is_unused(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    first = run(tmp_path, str(out), "--auditor", "max")
    assert first.returncode == 0
    assert "made   logins/auditor-max.nk" in first.stdout
    assert f"nats-server -c {out / 'nats.conf'}" in first.stdout
    assert "no TLS (--host)" in first.stderr
    (out / "logins" / "somebody.nk").touch()
    told = json.loads(run(tmp_path, str(out), "--json").stdout)
    assert told == {
        "folder": str(out), "made": [], "changed": [], "removed": [], "unused": ["logins/somebody.nk"], "moved": [],
    }  # fmt: skip


def test_what_the_operator_changed_in_the_servers_configuration_stays(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out))
    (out / "nats.conf").write_text("# mine\ninclude accounts.conf\n")
    assert run(tmp_path, str(out), "--auditor", "max").returncode == 0
    assert (out / "nats.conf").read_text() == "# mine\ninclude accounts.conf\n"


def test_no_output_shows_a_secret(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    said = "".join(run(tmp_path, str(out), *words).stdout for words in ((), ("--json",)))
    for path in (out / "logins").iterdir():
        assert path.read_text().strip() not in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--login", "mtls"], 2, "--host: expected the server's names for its certificate"),
        (["--login", "mtls", "--host", "bad name"], 2, "--host: expected a host name or an address, got 'bad name'"),
        (["--form", "jwt", "--login", "nkey"], 2, "--login: expected none with --form jwt"),
        (["--login", "mtls", "--host", "a", "--revoke", "payments"], 2, "--revoke: nats-server reads no revocation"),
        (["--expire"], 2, "--expire: expected --form jwt"),
        (["--drop", "bob"], 2, "--drop: there is no login 'bob'"),
        (["--form", "jwt", "--revoke", "nobody"], 2, "--revoke: expected one of "),
        (["--listen", "4222"], 2, "--listen: expected HOST:PORT, got '4222'"),
        (["--listen", "127.0.0.1:99999"], 2, "--listen: expected HOST:PORT"),
        (["--listen", "127.0.0.1:0"], 2, "--listen: expected HOST:PORT"),
        (["--listen", "::1:4222"], 2, "--listen: expected HOST:PORT, got '::1:4222'"),
        (["--listen", "[::g]:4222"], 2, "--listen: expected HOST:PORT"),
        (["--host", "[::1]"], 2, "--host: expected a host name or an address, got '[::1]'"),
        (["--host", "a:b"], 2, "--host: expected a host name or an address"),
        (["--authorizer", "Risk"], 2, "authorizer: expected 1 to 64 of a-z"),
        (["--auditor", "a.b"], 2, "auditor: expected 1 to 64"),
        (["--days", "0"], 2, "0 is not in the range"),
    ],
)
def test_wrong_words_write_nothing(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    out = tmp_path / "nats"
    done = run(tmp_path, str(out), *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "nats").touch()
    assert run(tmp_path, str(tmp_path / "nats")).returncode == 2


def test_tls_is_a_form_of_its_own(tmp_path: Path) -> None:
    out = str(tmp_path / "nats")
    run(tmp_path, out)
    done = run(tmp_path, out, "--host", "nats.internal")
    assert done.returncode == 2
    assert "holds the form 'plain nkey', got 'plain nkey tls'" in done.stderr


def test_without_bcrypt_it_says_how_to_get_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['bcrypt'] = None; from initiator.cli import main; main()"
    command = [sys.executable, "-c", script, "nats-config", str(tmp_path / "nats")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == 2
    assert "passwords need the library bcrypt" in done.stderr
    assert "pip install 'initiator[nats]'" in done.stderr


# --- a further run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_further_run_takes_what_it_is_not_told_from_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    first = (
        "--form",
        "jwt",
        "--expire",
        "--days",
        "9",
        "--authorizer",
        "risk",
        "--auditor",
        "max",
        "--operator",
        "ann",
    )
    where = ("--listen", "127.0.0.1:5222", "--leaf-listen", "127.0.0.1:5422", "--nodes-listen", "127.0.0.1:5223")
    run(tmp_path, str(out), *first, *where, "--host", "nats.internal")
    before = files(out)
    again = run(tmp_path, str(out))
    assert again.stdout.startswith("nothing changed\n"), again
    more = json.loads(run(tmp_path, str(out), "--operator", "bob", "--json").stdout)
    assert more["made"] == ["logins/operator-bob.creds"]
    after = files(out)
    assert {name for name, content in before.items() if after[name] != content} == {"order.json", "users.json"}


@pytest.mark.parametrize("form", ["plain", "jwt"])
def test_a_client_that_the_settings_name_no_more_is_dropped_in_so_many_words(form: str, tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), "--form", form, settings={"clients": {"payments": {}, "bob": {}}})
    before = files(out)
    done = run(tmp_path, str(out))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing names bob any more, and no login goes by being left out" in done.stderr
    assert "hint: name them again, or say --drop bob" in done.stderr
    assert files(out) == before
    told = json.loads(run(tmp_path, str(out), "--drop", "bob", "--json").stdout)
    suffix = "creds" if form == "jwt" else "nk"
    own = ["jwt/CLIENT_bob.jwt", "keys/CLIENT_bob.nk"] if form == "jwt" else []
    assert told["removed"] == [f"logins/bob.{suffix}", "bob.yaml", *own]
    assert b"CLIENT_bob" not in (out / "accounts.conf").read_bytes() + (out / "order.json").read_bytes()
    assert run(tmp_path, str(out)).stdout.startswith("nothing changed\n")


def test_who_is_named_is_not_dropped(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), "--operator", "ann")
    for words in (["--drop", "payments"], ["--drop", "initiator"], ["--operator", "ann", "--drop", "operator-ann"]):
        done = run(tmp_path, str(out), *words)
        assert done.returncode == 2
        assert f"--drop: '{words[-1]}' is still named" in done.stderr
    assert json.loads(run(tmp_path, str(out), "--drop", "operator-ann", "--json").stdout)["removed"] == [
        "logins/operator-ann.nk", "operator-ann.yaml",
    ]  # fmt: skip


def test_a_name_that_passes_to_another_party_gets_a_login_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), settings={"clients": {"operator-ann": {}}})
    old = (out / "logins" / "operator-ann.nk").read_bytes()
    assert "nothing names operator-ann any more" in run(tmp_path, str(out), "--operator", "ann").stderr
    assert run(tmp_path, str(out), "--operator", "ann", "--drop", "operator-ann").returncode == 0
    assert (out / "logins" / "operator-ann.nk").read_bytes() != old


def test_an_address_changes_where_it_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), "--host", "a.internal", "--listen", "0.0.0.0:5222")
    certificate = (out / "tls" / "server.pem").read_bytes()
    done = run(tmp_path, str(out), "--host", "b.internal", "--listen", "0.0.0.0:5333")
    assert "listen: 0.0.0.0:5222 before, 0.0.0.0:5333 now: nats.conf and leaf.conf are yours" in done.stderr
    assert '"tls://b.internal:5333"' in (out / "payments.yaml").read_text()
    assert (out / "tls" / "server.pem").read_bytes() != certificate
    assert run(tmp_path, str(out)).stdout.startswith("nothing changed\n")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "nats.conf").write_text("mine\n")
    for folder, said in ((tmp_path / "other", "holds 'nats.conf' and no order.json"), (tmp_path, "lies in the folder")):
        before = files(folder)
        done = run(tmp_path, str(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert files(folder).items() >= before.items()


def test_the_configuration_in_use_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out))
    mine = out / "initiator.yaml"
    mine.write_text(json.dumps(CLIENTS | json.loads(mine.read_text().partition("\n")[2])))
    before = mine.read_bytes()
    for done in (
        initiator("--config", str(mine), "nats-config", str(out)),
        initiator("nats-config", str(out), variables={"INITIATOR_CONFIG": str(mine)}),
    ):
        assert (done.returncode, mine.read_bytes()) == (2, before)
        assert "lies in the folder that is written" in done.stderr


# --- files that are not as they were written


@pytest.mark.parametrize("name", ["order.json", "users.json"])
@pytest.mark.parametrize(
    "content", [b"\xff", b"{", b"[]", b'{"a": 1}', None], ids=["bytes", "cut", "list", "other", "folder"]
)
def test_a_broken_file_is_told(name: str, content: bytes | None, tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), "--form", "jwt")
    path = out / name
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    done = run(tmp_path, str(out))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: CONFIG_INVALID {path}: "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["accounts.conf", "jwt/INITIATOR.jwt", "payments.yaml"])
def test_what_is_no_text_where_the_command_writes_is_told_or_written_anew(name: str, tmp_path: Path) -> None:
    out = tmp_path / "nats"
    run(tmp_path, str(out), "--form", "jwt")
    (out / name).write_bytes(b"\xff")
    done = run(tmp_path, str(out))
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or f"error: CONFIG_INVALID {out / name}: expected text in UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("logins/payments.password", b"x" * 73, "expected at most 72 bytes (bcrypt reads no more), got 73"),
        ("logins/payments.password", b"\xff\xfe", "expected text in UTF-8"),
        ("logins/payments.password", b"\n", "expected one line"),
        ("logins/payments.password", b"a\0b", "expected one line"),
        ("tls/ca.key", b"rubbish", "expected P-256 keys and certificates as PEM"),
        ("tls/server.pem", b"rubbish", "expected P-256 keys and certificates as PEM"),
    ],
)
def test_a_secret_that_can_be_none_is_told(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    out = tmp_path / "nats"
    settings: dict[str, Any] = {"clients": {}}
    words = (str(out), "--login", "password", "--host", "a")
    run(tmp_path, *words, settings=CLIENTS if "payments" in name else settings)
    (out / name).write_bytes(content)
    more = ("--host", "b") if name.startswith("tls") else ()
    done = run(tmp_path, *words, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["two\nlines", "$HOME", "\udcff"], ids=["lines", "a variable", "no UTF-8"])
def test_a_folder_whose_name_cannot_be_told_is_refused(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, str(tmp_path / name))
    assert done.returncode == 2
    assert "FOLDER: expected a path of printable characters" in done.stderr


def test_certificates_may_be_read_by_others_and_keys_may_not(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    words = (str(out), "--login", "mtls", "--host", "nats.internal")
    run(tmp_path, *words)
    for name in ("tls/ca.pem", "tls/server.pem", "logins/payments.pem"):
        (out / name).chmod(0o644)
    assert run(tmp_path, *words).stdout.startswith("nothing changed\n")
    for name in ("tls/ca.key", "tls/server.key", "logins/payments.key"):
        (out / name).chmod(0o640)
        assert f"{out / name}: expected mode 0600" in run(tmp_path, *words).stderr
        (out / name).chmod(0o600)
