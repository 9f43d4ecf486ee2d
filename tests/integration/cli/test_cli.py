"""The command line as a person meets it: one line that says what is wrong, one that says what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from initiator import __version__
from initiator import cli as cli_module
from tests.support import command


def initiator(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return command.run(*arguments, env=env or {})


def test_help_lists_every_command_with_a_sentence() -> None:
    shown = initiator("--help")
    assert shown.returncode == 0
    for name in ("run", "check", "config", "dlq", "dev", "key", "verify", "version"):
        assert f"\n  {name} " in shown.stdout
        assert initiator(name, "--help").returncode == 0


def test_the_version_is_the_packages() -> None:
    assert __version__ in initiator("version").stdout
    assert __version__ in initiator("--version").stdout


BAD = [
    (("burn",), 2, "No such command 'burn'"),
    (("--set", "log.level", "config", "check"), 2, "--set: expected KEY=VALUE, got 'log.level'"),
    (("--set", "log.level=loud", "config", "check"), 2, "CONFIG_INVALID config: log.level (--set): expected 'debug',"),
    (
        ("--set", "nats.password=hunter2", "config", "check"),
        2,
        "nats.password (--set): secrets only from the environment",
    ),
    (("chekc",), 2, "No such command 'chekc'. Did you mean 'check'?"),
    (("--config", "/nowhere.yaml", "run"), 2, "CONFIG_INVALID config: /nowhere.yaml: No such file or directory"),
    (("--set", "environment=production", "run"), 2, "production needs the pin"),
    (("--set", "signer.type=local", "--set", "http.enabled=false", "run"), 2, "signer.local.path: no key file is"),
    (("--set", "signer.type=local", "key", "show"), 2, "CONFIG_INVALID signer.local.path: no key file is configured"),
    (("--set", "signer.type=local", "--set", "signer.local.path=/nowhere", "key", "show"), 1, "KEY_FILE_INVALID"),
]


@pytest.mark.parametrize(("arguments", "code", "told"), BAD, ids=[told for _, _, told in BAD])
def test_a_mistake_is_one_line_and_an_exit_code(arguments: tuple[str, ...], code: int, told: str) -> None:
    done = initiator(*arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_where_an_error_came_from() -> None:
    assert "Traceback" in initiator("--debug", "--config", "/nowhere.yaml", "config", "check").stderr


def test_config_show_tells_each_value_its_source_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "initiator.yaml"
    path.write_text("http: {port: 9}\n")
    env = {"INITIATOR_NATS__PASSWORD": "hunter2"}
    shown = initiator("--config", str(path), "--set", "log.level=debug", "config", "show", env=env)
    lines = {line.split(":")[0]: " ".join(line.split()) for line in shown.stdout.splitlines()}
    assert lines["http.port"] == f"http.port: 9 # {path}"
    assert lines["log.level"] == 'log.level: "debug" # --set'
    assert lines["nats.password"] == 'nats.password: "[redacted]" # env INITIATOR_NATS__PASSWORD'
    assert lines["http.host"] == 'http.host: "127.0.0.1" # default'
    as_json = json.loads(initiator("--config", str(path), "config", "show", "--json", env=env).stdout)
    assert as_json["nats.password"] == {"value": "[redacted]", "source": "env INITIATOR_NATS__PASSWORD"}
    assert "hunter2" not in shown.stdout


def test_config_check_says_ok_and_what_a_daemon_still_needs() -> None:
    done = initiator("config", "check")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr.splitlines() == [
        "to run it needs signer.kms.key_id",
        "to run it needs clients: without one nobody may ask for anything",
    ]
    whole = initiator("--set", "signer.kms.key_id=alias/x", "--set", "clients.alice={}", "config", "check")
    assert (whole.stdout, whole.stderr) == ("ok\n", "")


def test_a_bug_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(cli_module, "cli", fails)
    with pytest.raises(SystemExit) as ended:
        cli_module.main()
    assert ended.value.code == 70
    assert "please report it" in capsys.readouterr().err
