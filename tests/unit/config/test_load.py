# ruff: noqa: E501 - one row of a table, one line
"""Settings and their sources: what wins, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from initiator.config.example import flatten, render
from initiator.config.load import Loaded, load_settings, read_secret
from initiator.core.model import Operation
from initiator.errors import Code, HaltError

ROOT = Path(__file__).parents[3]
ENV = dict[str, str]


def load(tmp_path: Path, text: str = "", env: ENV | None = None, overrides: ENV | None = None) -> Loaded:
    path = tmp_path / "initiator.yaml"
    path.write_text(text)
    return load_settings(str(path), overrides or {}, env or {})


def refusal(tmp_path: Path, text: str = "", env: ENV | None = None, overrides: ENV | None = None) -> str:
    with pytest.raises(HaltError) as error:
        load(tmp_path, text, env, overrides)
    assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, "config")
    assert error.value.hint
    return error.value.reason.replace(str(tmp_path / "initiator.yaml"), "FILE")


# --- sources


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = "http: {port: 1, host: a}\nlog: {level: debug}"
    loaded = load(tmp_path, text, {"INITIATOR_HTTP__PORT": "2", "INITIATOR_HTTP__HOST": "b"}, {"http.port": "3"})
    settings, sources = loaded.settings, loaded.sources
    assert (settings.http.port, settings.http.host, settings.log.level) == (3, "b", "debug")
    assert sources["http.port"] == "--set"
    assert sources["http.host"] == "env INITIATOR_HTTP__HOST"
    assert sources["log.level"] == str(tmp_path / "initiator.yaml")
    assert "log.format" not in sources


def test_the_file_may_be_named_by_the_environment_and_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("http: {port: 9}")
    assert load_settings(None, {}, {"INITIATOR_CONFIG": str(path)}).settings.http.port == 9
    assert load_settings(None, {}, {}).settings.http.port == 8080


def test_texts_stay_texts_and_lists_are_yaml(tmp_path: Path) -> None:
    env = {"INITIATOR_NATS__PASSWORD": "0123", "INITIATOR_NATS__SERVERS": "[nats://a:1, nats://b:2]"}
    settings = load(tmp_path, "", env, {"clients.payments.operations": "[sign]"}).settings
    assert settings.nats.password is not None
    assert settings.nats.password.get_secret_value() == "0123"
    assert settings.nats.servers == ("nats://a:1", "nats://b:2")
    assert settings.clients["payments"].operations == (Operation.SIGN,)


@pytest.mark.parametrize("text", ["", "\n", "nats:\n", "# nothing\n", "signer:\n  kms:\nlog:\n"])
def test_a_section_whose_keys_are_all_commented_out_is_its_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).settings == load_settings(None, {}, {}).settings


# --- bad input: text, environment, overrides, what the reader is told

UNDER_PRODUCTION = "environment: production\nmpcium: {event_initiator_pubkey: aa}\n"
BAD_FILES = [
    ("http: {prot: 80}", "http.prot (FILE): no such key; did you mean http.port?"),
    ("htpp: {port: 80}", "htpp (FILE): no such key; did you mean http?"),
    ("mpcium: {sign: {in_fligth: 1}}", "mpcium.sign.in_fligth (FILE): no such key; did you mean mpcium.sign.in_flight?"),
    ("clients: {a: {wieght: 1}}", "clients.a.wieght (FILE): no such key; did you mean clients.*.weight?"),
    ("http: {port: true}", "http.port (FILE): expected an integer, got 'True'"),
    ("http: {port: '80'}", "http.port (FILE): expected an integer, got '80'"),
    ("http: {port: 80.5}", "http.port (FILE): expected an integer, got '80.5'"),
    ("http: {port: -1}", "http.port (FILE): expected greater than or equal to 0, got '-1'"),
    ("http: {port: 65536}", "http.port (FILE): expected less than or equal to 65535, got '65536'"),
    ("http: {enabled: 1}", "http.enabled (FILE): expected a boolean, got '1'"),
    ("http: {host: 1}", "http.host (FILE): expected a string, got '1'"),
    ("limits: {max_expiry_s: .inf}", "limits.max_expiry_s (FILE): expected less than or equal to 31536000, got 'inf'"),
    ("limits: {max_expiry_s: .nan}", "limits.max_expiry_s (FILE): expected less than or equal to 31536000, got 'nan'"),
    ("limits: {max_expiry_s: 0}", "limits.max_expiry_s (FILE): expected greater than 0, got '0'"),
    ("log: {level: loud}", "log.level (FILE): expected 'debug', 'info', 'warning' or 'error', got 'loud'"),
    ("streams: {replicas: 2}", "streams.replicas (FILE): expected 1, 3 or 5, got '2'"),
    ("nats: 3", "nats (FILE): expected a map, got '3'"),
    ("clients: [a]", "clients (FILE): expected a map"),
    ("nats: {servers: nats://a}", "nats.servers (FILE): expected a list, got 'nats://a'"),
    ("nats: {servers: []}", "nats.servers (FILE): expected at least 1 item"),
    ("clients: {a b: {}}", "clients.a b (FILE): expected text that matches '^[A-Za-z0-9_-]{1,64}$', got 'a b'"),
    ("clients: {a: {operations: [burn]}}", "clients.a.operations.0 (FILE): expected 'keygen', 'sign' or 'reshare', got 'burn'"),
    ("mpcium: {chain_code: 'zz'}", "mpcium.chain_code (FILE): expected text that matches '^[0-9a-fA-F]{64}$', got 'zz'"),
    ("worker: {ack_wait_s: 3}", "worker (FILE): heartbeat_s must be at most a third of ack_wait_s"),
    ("nats: {tls: {cert_file: c}}", "nats.tls (FILE): cert_file and key_file come together"),
    ("nats: {password: x}", "nats.password (FILE): secrets only from the environment or from nats.password_file"),
    ("mpcium: {nats: {token: x}}", "mpcium.nats.token (FILE): secrets only from the environment or from mpcium.nats.token_file"),
    ("signer: {kms: {access_key_id_file: f}}", "signer.kms (FILE): access_key_id and secret_access_key come together"),
    ("signer: {kms: {secret_access_key_file: f}}", "signer.kms (FILE): access_key_id and secret_access_key come together"),
    ("signer: {kms: {session_token_file: f}}", "signer.kms (FILE): session_token needs access_key_id and secret_access_key"),
    ("signer: {kms: {regions: [{region: a}, {region: a}]}}", "signer.kms (FILE): regions.1.region: a stands there twice"),
    ("signer: {kms: {regions: {region: a}}}", "signer.kms.regions (FILE): expected a list"),
    ("signer: {kms: {regions: [{key_id: mrk-1}]}}", "signer.kms.regions.0.region (FILE): field required"),
    ("signer: {kms: {regions: [{region: a, endpoint: u}]}}", "signer.kms.regions.0.endpoint (FILE): no such key; did you mean signer.kms.regions.*.endpoint_url?"),
    (
        "signer: {kms: {region: a, regions: [{region: a}]}}",
        "signer.kms (FILE): regions stands instead of region and endpoint_url: name these in the list alone",
    ),
    (
        "signer: {kms: {key_id: alias/initiator, regions: [{region: a}, {region: b}]}}",
        "signer.kms (FILE): regions.0.key_id: expected this Region's own key id, since signer.kms.key_id names no multi-Region key (mrk-…)",
    ),
    (
        "signer: {kms: {key_id: ab-12, regions: [{region: a, key_id: ab-12}, {region: b}]}}",
        "signer.kms (FILE): regions.1.key_id: expected this Region's own key id, since signer.kms.key_id names no multi-Region key (mrk-…)",
    ),
    (
        "signer: {kms: {regions: [{region: a, key_id: mrk-1}, {region: b}]}}",
        "signer.kms (FILE): regions.1.key_id: expected the key's name in this Region, here or as signer.kms.key_id of all",
    ),
    (
        "signer: {kms: {regions: [{region: a, key_id: 'arn:aws:kms:b:1:key/mrk-1'}]}}",
        "signer.kms (FILE): regions.0.key_id: expected a key in a, got an ARN of b",
    ),
    ("signer: {kms: {breaker_pause_s: 20}}", "signer.kms (FILE): breaker_pause_max_s must be at least breaker_pause_s"),
    (
        "audit: {exporter: max, max_lag_s: 7776000}",
        "settings: audit.max_lag_s: expected less than streams.intermediate_max_age_s: events must not expire unexported",
    ),
    (
        "streams: {final_max_age_s: 86401}",
        "settings: streams.final_max_age_s: expected more than limits.max_expiry_s and limits.clock_skew_s together: "
        "a request must expire before the final event that its replay is held against",
    ),
    (
        "streams: {intermediate_max_age_s: 86401}",
        "settings: streams.intermediate_max_age_s: expected more than limits.max_expiry_s, default_expiry_s of every "
        "lane and limits.clock_skew_s: the record must not forget an operation before its deadline",
    ),
    (
        "streams: {final_max_age_s: 90000}",
        "settings: streams.final_max_age_s: expected at least streams.intermediate_max_age_s",
    ),
    ("environment: production", "settings: mpcium.event_initiator_pubkey: production needs the pin, the key that the nodes trust"),
    (
        UNDER_PRODUCTION + "signer: {type: local}",
        "settings: signer.type: a local key in production needs signer.allow_local_in_production: true",
    ),
    (
        UNDER_PRODUCTION + "signer: {kms: {access_key_id_file: f, secret_access_key_file: f}}",
        "settings: static credentials in production need signer.kms.allow_static_credentials_in_production: true",
    ),
    ("a: &x 1\nb: *x", "FILE: aliases are not allowed at line 2"),
    ('nats:\n  user: "\\ud83d"', "FILE: half a character at line 2"),
    ("a: 1\na: 2", "FILE: key 'a' stands there twice at line 2"),
    ("nats: {user: a, user: b}", "FILE: key 'user' stands there twice at line 1"),
    ("1: 2", "FILE: key 1 is no string at line 1"),
    ("- 1", "FILE: expected a map at the top"),
    ("text", "FILE: expected a map at the top"),
    ("a: [", "FILE: expected the node content, but found '<stream end>' at line 1"),
    ("clients: !!map [a]", "FILE: TypeError"),
    ("log: !!timestamp x", "FILE: AttributeError"),
    ("log: !!bool maybe", "FILE: KeyError"),
    ("log: !!int ''", "FILE: IndexError"),
    ("!!python/object/apply:os.system [ls]", "FILE: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system' at line 1"),
]  # fmt: skip


def test_a_character_that_json_writes_as_two_escapes_is_one(tmp_path: Path) -> None:
    assert load(tmp_path, json.dumps({"nats": {"user": "\N{GRINNING FACE}"}})).settings.nats.user == "\N{GRINNING FACE}"


@pytest.mark.parametrize(("text", "told"), BAD_FILES, ids=[told[:60] for _, told in BAD_FILES])
def test_a_bad_file_is_refused_with_the_key_and_what_was_expected(tmp_path: Path, text: str, told: str) -> None:
    assert refusal(tmp_path, text) == told


BAD_VARIABLES = [
    ({"INITIATOR_HTTP__PORT": "x"}, "http.port (env INITIATOR_HTTP__PORT): expected an integer, got 'x'"),
    ({"INITIATOR_HTTP_PORT": "1"}, "http_port (env INITIATOR_HTTP_PORT): no such key; did you mean http.port?"),
    (
        {"INITIATOR_SIGNER__KMS__ACCESS_KEY_ID": "AKIDEXAMPLE"},
        "signer.kms (env INITIATOR_SIGNER__KMS__ACCESS_KEY_ID): access_key_id and secret_access_key come together",
    ),
]


@pytest.mark.parametrize(("env", "told"), BAD_VARIABLES)
def test_a_bad_variable_is_refused_by_its_name(tmp_path: Path, env: ENV, told: str) -> None:
    assert refusal(tmp_path, "", env) == told


def test_a_bad_override_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", {}, {"http.port": "x"}) == "http.port (--set): expected an integer, got 'x'"
    assert refusal(tmp_path, "", {}, {"prot": "1"}).startswith("prot (--set): no such key")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, "http: {port: x}\nnats: {password: p}", {"INITIATOR_LOG__LEVEL": "loud"})
    assert [part.split(" ")[0] for part in told.split("; ")] == ["nats.password", "http.port", "log.level"]


def test_no_refusal_repeats_a_secret(tmp_path: Path) -> None:
    told = refusal(tmp_path, "nats: {password: hunter2, user: [hunter2]}", {"INITIATOR_NATS__TOKEN": "[hunter2"})
    assert "hunter2" not in told
    assert "hunter2" not in refusal(tmp_path, "nats: {password: hunter2, password: hunter2}")


WRONG_ADDRESSES = (
    "nats: {servers: 'nats://user:hunter2@host:4222'}",
    "nats: {servers: 'nats://user:hunter2@host,nats://user:hunter2@other'}",
    "nats: {servers: 'user:hunter2@host'}",
    "nats: {servers: {'nats://user:hunter2@host': 5}}",
    "nats: {'nats://user:hunter2@host': 5}",
    "nats: {'nats://user:hunter2@host': 5, 'nats://user:hunter2@host': 5}",
    "nats: 'nats://user:hunter2@host'",
    "mpcium: {nats: {servers: 'nats://user:hunter2@host'}}",
    "signer: {kms: {endpoint_url: ['http://user:hunter2@host']}}",
)


@pytest.mark.parametrize("text", WRONG_ADDRESSES)
def test_a_wrong_address_is_told_without_its_login(text: str, tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("nats://user:hunter2@host:4222", "nats://host:4222"),
        ("nats://user:hun/t@er2@host", "nats://host"),
        ("nats://user:hun://ter2@host", "nats://host"),
        ("nats://user:hunter2@a,nats://user:hunter2@b", "nats://b"),
        ("user:hunter2@host:4222", "host:4222"),
        ("nats://host:4222", "nats://host:4222"),
        ("host:4222", "host:4222"),
        ("/etc/a@b/c", "/etc/a@b/c"),
    ],
)
def test_an_address_is_shown_without_its_login(address: str, shown: str, tmp_path: Path) -> None:
    settings = load(tmp_path, f"nats: {{servers: ['{address}']}}").settings
    assert settings.nats.servers == (address,)
    assert f"servers=('{shown}',)" in repr(settings)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "absent", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(HaltError) as error:
            load_settings(str(path), {}, {})
        assert error.value.reason == f"{path}: {told}"
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HaltError, match="binary: "):
        load_settings(str(binary), {}, {})
    binary.write_bytes(b"#" * 1_048_577)
    with pytest.raises(HaltError, match="larger than 1048576 bytes"):
        load_settings(str(binary), {}, {})


def test_deep_nesting_ends_in_a_refusal(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a: " + "[" * 5000 + "]" * 5000).startswith("FILE: ")


# --- Regions

ARN = "arn:aws:kms:{}:1:key/mrk-1"
TARGETS = [
    ("region: a, key_id: k, endpoint_url: u", [("a", "k", "u")]),
    ("key_id: k", [(None, "k", None)]),
    ("region: a", []),
    ("regions: [{region: a}, {region: b}]", []),
    ("key_id: mrk-1, regions: [{region: a}, {region: b, endpoint_url: u}]", [("a", "mrk-1", None), ("b", "mrk-1", "u")]),
    (
        f"key_id: '{ARN.format('a')}', regions: [{{region: b}}, {{region: a}}]",
        [("b", ARN.format("b"), None), ("a", ARN.format("a"), None)],
    ),
    ("key_id: mrk-1, regions: [{region: a}, {region: b, key_id: k}]", [("a", "mrk-1", None), ("b", "k", None)]),
    ("regions: [{region: a, key_id: j}, {region: b, key_id: alias/k}]", [("a", "j", None), ("b", "alias/k", None)]),
    ("key_id: alias/k, regions: [{region: a}]", [("a", "alias/k", None)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "targets"), TARGETS)
def test_where_to_sign_follows_from_the_settings(
    tmp_path: Path, text: str, targets: list[tuple[str | None, str, str | None]]
) -> None:
    kms = load(tmp_path, f"signer: {{kms: {{{text}}}}}").settings.signer.kms
    assert [(target.region, target.key_id, target.endpoint_url) for target in kms.targets] == targets


def test_regions_may_come_from_the_environment_and_are_shown(tmp_path: Path) -> None:
    text = "[{region: a}, {region: b, endpoint_url: u}]"
    env = {"INITIATOR_SIGNER__KMS__REGIONS": text, "INITIATOR_SIGNER__KMS__KEY_ID": "mrk-1"}
    settings = load(tmp_path, "", env).settings
    assert [target.region for target in settings.signer.kms.targets] == ["a", "b"]
    assert flatten(settings)["signer.kms.regions"] == [
        {"region": "a", "key_id": None, "endpoint_url": None},
        {"region": "b", "key_id": None, "endpoint_url": "u"},
    ]


# --- secrets


def test_a_secret_comes_from_its_value_or_its_file_without_the_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(" s3cret \n")
    assert read_secret(None, str(path)) == " s3cret "
    assert read_secret(None, None) is None
    with pytest.raises(HaltError) as error:
        read_secret(None, str(tmp_path / "absent"))
    assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, str(tmp_path / "absent"))


def test_secrets_are_redacted_wherever_settings_are_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, "", {"INITIATOR_NATS__PASSWORD": "hunter2"}).settings
    assert flatten(settings)["nats.password"] == "[redacted]"
    assert "hunter2" not in repr(settings)


# --- the example


def test_the_example_in_the_repository_is_current() -> None:
    assert (ROOT / "config.example.yaml").read_text() == render(), "run `make config-example`"


def test_the_example_is_the_defaults() -> None:
    assert load_settings(str(ROOT / "config.example.yaml"), {}, {}).settings == load_settings(None, {}, {}).settings


def test_every_key_of_the_example_says_what_it_is() -> None:
    silent = [
        line
        for line in (ROOT / "config.example.yaml").read_text().splitlines()[5:]
        if ": " in line and "  # " not in line
    ]
    assert silent == []


def test_commented_keys_of_the_example_are_keys_too(tmp_path: Path) -> None:
    lines = []
    for line in render().splitlines()[5:]:
        if "only from the environment" in line or line.startswith(("##", "clients: {}")):
            continue
        # a section that is null by default gets the keys that are commented out below it
        shown = line.removeprefix("#").replace("nats: null", "nats:").replace("tls: null", "tls:")
        lines.append(shown.replace("regions: []", "regions:"))
    loaded = load(tmp_path, "\n".join(lines))
    assert "payments" in loaded.settings.clients
    assert [entry.region for entry in loaded.settings.signer.kms.regions] == ["eu-central-1"]
    assert loaded.settings.mpcium.nats is not None
