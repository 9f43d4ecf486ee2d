"""`initiator nats-config` as its user types it, with wrong words too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.environment import environment

CLIENTS: dict[str, Any] = {"clients": {"payments": {}}}


def run(folder: Path, *words: str, prelude: str = "pass") -> subprocess.CompletedProcess[str]:
    config = folder / "initiator.yaml"
    config.write_text(json.dumps(CLIENTS))
    script = f"import sys; {prelude}; from initiator.cli import main; main()"
    command = [sys.executable, "-c", script, "--config", str(config), "nats-config", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())


def test_it_tells_what_it_made_and_what_is_unused(tmp_path: Path) -> None:
    out = tmp_path / "nats"
    first = run(tmp_path, str(out), "--auditor", "max")
    assert first.returncode == 0
    assert "made   logins/auditor-max.nk" in first.stdout
    assert f"nats-server -c {out / 'nats.conf'}" in first.stdout
    assert "no TLS (--host)" in first.stderr
    told = json.loads(run(tmp_path, str(out), "--json").stdout)
    assert (told["made"], told["unused"]) == ([], ["logins/auditor-max.nk"])
    assert told["changed"] == ["accounts.conf"]
    assert "AUDITOR_max" not in (out / "accounts.conf").read_text()


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
        (["--revoke", "payments"], 2, "--revoke: expected --form jwt"),
        (["--form", "jwt", "--revoke", "nobody"], 2, "--revoke: expected one of "),
        (["--listen", "4222"], 2, "--listen: expected HOST:PORT, got '4222'"),
        (["--listen", "127.0.0.1:99999"], 2, "--listen: expected HOST:PORT"),
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
    done = run(tmp_path, str(tmp_path / "nats"), prelude="sys.modules['bcrypt'] = None")
    assert done.returncode == 2
    assert "passwords need the library bcrypt" in done.stderr
    assert "pip install 'initiator[nats]'" in done.stderr
