"""Keys in files, certificates and JWTs by themselves: what is there stays, what is open is refused."""

from __future__ import annotations

import dataclasses
import datetime
import stat
from pathlib import Path

import pytest
import yaml

from initiator.config.load import load_settings
from initiator.core.accounts import DAEMON_AT_NODES, Parties, layout
from initiator.core.model import Operation
from initiator.errors import Code, HaltError
from initiator.natsconfig import jwtform, nkey, passwords, plain, plainform, token
from initiator.natsconfig.keyring import Keyring
from initiator.natsconfig.order import Order, url_of
from initiator.natsconfig.userkeys import UserKeys

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
ALL = tuple(Operation)


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_COST", 4)


def order(**more: object) -> Order:
    parties = Parties(clients={"payments": ALL, "treasury": (Operation.SIGN,)})
    return Order(**({"parties": parties} | more))  # type: ignore[arg-type]


def test_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "new")
    plainform.write(keyring, order(), NOW)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(), NOW)
    (tmp_path / "logins" / "payments.nk").chmod(0o640)
    with pytest.raises(HaltError, match="expected mode 0600, got one that others may use") as halted:
        plainform.write(Keyring(tmp_path), order(), NOW)
    assert halted.value.code == "CONFIG_INVALID"


def test_a_link_in_the_place_of_a_key_is_not_followed(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path / "nats"), order(), NOW)
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "nats" / "logins" / "payments.nk"
    link.unlink()
    link.symlink_to(elsewhere)
    with pytest.raises(HaltError):
        plainform.write(Keyring(tmp_path / "nats"), order(), NOW)
    assert not elsewhere.exists()


@pytest.mark.parametrize("form", ["plain", "jwt"])
def test_a_second_run_changes_nothing_and_a_client_more_adds_its_own(form: str, tmp_path: Path) -> None:
    write = plainform.write if form == "plain" else jwtform.write
    write(Keyring(tmp_path), order(form=form), NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = Keyring(tmp_path)
    write(again, order(form=form), NOW + datetime.timedelta(days=3))
    assert (again.made, again.changed) == ([], [])
    more = Keyring(tmp_path)
    write(more, order(form=form, parties=Parties(clients={"payments": ALL, "treasury": ALL[1:2], "late": ALL})), NOW)
    assert all("late" in name for name in more.made)
    kept = {path for path, content in before.items() if path.read_bytes() == content}
    changed = {path.name for path in before.keys() - kept}
    own = {"INITIATOR.jwt", "users.json"} if form == "jwt" else set()
    assert changed == {"accounts.conf", "order.json"} | own


def test_credentials_are_renewed_in_their_second_half_around_the_same_key(tmp_path: Path) -> None:
    wanted = order(form="jwt", expire=True, days=10)
    jwtform.write(Keyring(tmp_path), wanted, NOW)
    path = tmp_path / "logins" / "payments.creds"
    first = path.read_text()
    for days, renewed in ((4, False), (6, True)):
        jwtform.write(Keyring(tmp_path), wanted, NOW + datetime.timedelta(days=days))
        assert (path.read_text() != first) is renewed
    ends = token.body_of(path.read_text().splitlines()[1])["exp"]
    assert ends == int((NOW + datetime.timedelta(days=16)).timestamp())
    assert first.splitlines()[-2] == path.read_text().splitlines()[-2]  # the seed


def test_the_server_is_told_no_secret(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(login="password"), NOW)
    text = (tmp_path / "accounts.conf").read_text()
    for path in (tmp_path / "logins").glob("*.password"):
        assert path.read_text() not in text
    assert passwords.matches((tmp_path / "logins" / "payments.password").read_bytes(), b"$2b$") is False


def test_the_server_is_told_no_seed(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path / "plain"), order(), NOW)
    jwtform.write(Keyring(tmp_path / "jwt"), order(form="jwt"), NOW)
    for folder in (tmp_path / "plain", tmp_path / "jwt"):
        text = "".join((folder / name).read_text() for name in ("accounts.conf", "nats.conf"))
        for path in folder.rglob("*.nk"):
            assert path.read_text() not in text


def test_a_password_that_was_put_there_is_used_and_hashed_anew(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(login="password"), NOW)
    (tmp_path / "logins" / "payments.password").write_text("correct horse\n")
    plainform.write(Keyring(tmp_path), order(login="password"), NOW)
    known = (tmp_path / "logins" / "payments.bcrypt").read_bytes()
    assert passwords.matches(b"correct horse", known)
    assert known.decode() in (tmp_path / "accounts.conf").read_text()


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(), NOW)
    with pytest.raises(HaltError, match="holds the form 'plain nkey', got 'jwt'"):
        jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)


def revocations(folder: Path, account: str) -> dict[str, int]:
    """As the server is told of them."""
    body = token.body_of((folder / "jwt" / f"{account}.jwt").read_text())
    found: dict[str, int] = body["nats"].get("revocations", {})
    return found


def user_key(folder: Path, user: str) -> str:
    seed = (folder / "logins" / f"{user}.creds").read_text().splitlines()[-2]
    return nkey.Pair(seed.encode(), nkey.USER).public


def test_a_key_that_no_login_holds_any_more_is_revoked_whatever_became_of_its_file(tmp_path: Path) -> None:
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    first = user_key(tmp_path, "payments")
    assert revocations(tmp_path, "CLIENT_payments") == {}
    (tmp_path / "logins" / "payments.creds").unlink()
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    assert revocations(tmp_path, "CLIENT_payments").keys() == {first}
    second = user_key(tmp_path, "payments")
    jwtform.write(Keyring(tmp_path), order(form="jwt", revoke=("payments",)), NOW)
    assert revocations(tmp_path, "CLIENT_payments").keys() == {first, second}
    assert user_key(tmp_path, "payments") not in {first, second}


def test_an_operator_who_is_dropped_is_revoked_and_stays_so(tmp_path: Path) -> None:
    parties = Parties(clients={"payments": ALL}, operators=("ann",))
    jwtform.write(Keyring(tmp_path), order(form="jwt", parties=parties), NOW)
    key = user_key(tmp_path, "operator-ann")
    without = order(form="jwt", parties=Parties(clients={"payments": ALL}))
    with pytest.raises(HaltError, match="nothing names operator-ann any more"):
        jwtform.write(Keyring(tmp_path), without, NOW)
    jwtform.write(Keyring(tmp_path), dataclasses.replace(without, drop=("operator-ann",)), NOW)
    for _ in range(2):
        assert revocations(tmp_path, "INITIATOR").keys() == {key}
        assert not list(tmp_path.rglob("*ann*"))
        jwtform.write(Keyring(tmp_path), without, NOW)


def test_a_login_that_was_revoked_is_not_taken_back(tmp_path: Path) -> None:
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    path = tmp_path / "logins" / "payments.creds"
    old = path.read_bytes()
    jwtform.write(Keyring(tmp_path), order(form="jwt", revoke=("payments",)), NOW)
    path.write_bytes(old)
    with pytest.raises(HaltError, match="its key was revoked"):
        jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)


def test_the_nodes_lose_their_password_with_their_login(tmp_path: Path) -> None:
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    before = {name: (tmp_path / name).read_bytes() for name in ("logins/nodes.password", "leaf-accounts.conf")}
    jwtform.write(Keyring(tmp_path), order(form="jwt", revoke=("nodes",)), NOW)
    assert all((tmp_path / name).read_bytes() != content for name, content in before.items())
    known = (tmp_path / "logins" / "nodes.bcrypt").read_bytes()
    assert passwords.matches((tmp_path / "logins" / "nodes.password").read_bytes(), known)
    assert known.decode() in (tmp_path / "leaf-accounts.conf").read_text()


@pytest.mark.parametrize(
    ("parties", "said"),
    [
        (Parties(clients={"a.b": ALL}), "client: expected 1 to 64"),
        (Parties(clients={"nodes": ALL}), "got 'nodes' twice"),
        (Parties(clients={"Payments": ALL, "payments": ALL}), "twice"),
        (Parties(clients={"authorizer-risk": ALL}, authorizers=("risk",)), "twice"),
        (Parties(clients={}, authorizers=("Risk",)), "authorizer: expected 1 to 64 of a-z"),
        (Parties(clients={}, auditors=(">",)), "auditor: expected"),
        (Parties(clients={}, domain="hub", nodes_domain="edge"), "expected 'hub', the domain of `nats`"),
        (Parties(clients={}, domain="a.b"), "expected 1 to 64 of"),
    ],
)
def test_names_that_cannot_be(parties: Parties, said: str, tmp_path: Path) -> None:
    with pytest.raises(HaltError, match=said):
        plainform.write(Keyring(tmp_path), order(parties=parties), NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_client_may_ask_for_its_operations_alone() -> None:
    found = layout(Parties(clients={"treasury": (Operation.SIGN,)}))
    asked = [grant.subject for grant in found.imports("CLIENT_treasury") if ".request." in grant.subject]
    assert asked == ["initiator.request.treasury.sign"]


def test_a_domain_is_part_of_the_calls() -> None:
    found = layout(Parties(clients={}, domain="hub", nodes_domain="edge", auditors=("max",)))
    [at_nodes] = [user for _, user in found.users() if user.name == DAEMON_AT_NODES]
    assert at_nodes.publish is not None
    calls = [
        subject.partition(".API.") for subject in at_nodes.publish if subject.startswith(("$JS.edge.", "$JS.API."))
    ]
    named = {call for prefix, _, call in calls if prefix == "$JS.edge"}
    assert named == {call for prefix, _, call in calls if prefix == "$JS"}  # a server of the domain asks for these
    assert "INFO" in named
    reads = [grant.subject for grant in found.imports("AUDITOR_max") if grant.subject != "initiator.exported.max"]
    assert reads
    assert all(subject.startswith("$JS.hub.API.") for subject in reads)


@pytest.mark.parametrize(("domain", "nodes_domain"), [("hub", "hub"), ("hub", None), (None, "hub")])
def test_a_domain_stands_in_the_servers_file_and_in_logins(
    domain: str | None, nodes_domain: str | None, tmp_path: Path
) -> None:
    parties = Parties(clients={}, operators=("ann",), domain=domain, nodes_domain=nodes_domain)
    plainform.write(Keyring(tmp_path), order(parties=parties), NOW)
    assert 'sync_interval: always, domain: "hub" }' in (tmp_path / "nats.conf").read_text()
    daemon = yaml.safe_load((tmp_path / "initiator.yaml").read_text())
    operator = yaml.safe_load((tmp_path / "operator-ann.yaml").read_text())
    assert daemon["nats"].get("jetstream_domain") == operator["nats"].get("jetstream_domain") == domain
    assert daemon["mpcium"]["nats"].get("jetstream_domain") == nodes_domain


def test_an_auditors_login_says_under_which_name_it_exports(tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(parties=Parties(clients={}, auditors=("max",))), NOW)
    settings = load_settings(str(tmp_path / "auditor-max.yaml"), {}, {}).settings
    assert (settings.audit.exporter, settings.nats.jetstream_domain) == ("max", "initiator")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("0.0.0.0:5222", "nats://127.0.0.1:5222"),
        ("[::]:5222", "nats://127.0.0.1:5222"),
        ("[::1]:5222", "nats://[::1]:5222"),
        ("nats.internal:4222", "nats://nats.internal:4222"),
    ],
)
def test_where_a_server_is_reached(listen: str, url: str) -> None:
    assert url_of(order(listen=listen), listen) == url


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert url_of(order(hosts=("::1", "a.internal")), "[::]:5222") == "tls://[::1]:5222"


def test_a_text_with_a_dollar_is_no_variable_unless_it_is_meant() -> None:
    assert plain.password("a", "$2b$11$x")["password"] == '"$2b$11$x"'
    assert plain.password("a", "$PAYMENTS_PASSWORD")["password"] == "$PAYMENTS_PASSWORD"


@pytest.mark.parametrize("seed", [b"", b"rubbish", nkey.make(nkey.ACCOUNT)], ids=["empty", "rubbish", "an account"])
def test_a_file_that_holds_no_users_key(seed: bytes, tmp_path: Path) -> None:
    plainform.write(Keyring(tmp_path), order(), NOW)
    (tmp_path / "logins" / "payments.nk").write_bytes(seed)
    with pytest.raises(HaltError) as halted:
        plainform.write(Keyring(tmp_path), order(), NOW)
    assert "rubbish" not in str(halted.value)


def test_a_login_of_a_run_that_failed_is_void_when_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account's key had signed it: whoever copied it would have got in for good."""
    parties = Parties(clients={"payments": ALL}, operators=("carol",))
    with monkeypatch.context() as patch:
        patch.setattr(UserKeys, "close", _fails)
        with pytest.raises(HaltError):
            jwtform.write(Keyring(tmp_path), order(form="jwt", parties=parties), NOW)
    key = user_key(tmp_path, "operator-carol")
    without = order(form="jwt", parties=Parties(clients={"payments": ALL}), drop=("operator-carol",))
    jwtform.write(Keyring(tmp_path), without, NOW)
    assert revocations(tmp_path, "INITIATOR").keys() == {key}


def _fails(_self: object) -> None:
    raise HaltError(Code.CONFIG_INVALID, "the disk is full")


@pytest.mark.parametrize("left", [None, ""])
def test_a_list_of_the_revoked_that_is_lost_is_not_taken_for_an_empty_one(tmp_path: Path, left: str | None) -> None:
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    jwtform.write(Keyring(tmp_path), order(form="jwt", revoke=("payments",)), NOW)
    before = revocations(tmp_path, "CLIENT_payments")
    (tmp_path / "users.json").unlink()
    if left is not None:
        (tmp_path / "users.json").write_text(left)
    with pytest.raises(HaltError) as refused:
        jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    assert "it keeps out whoever was revoked" in str(refused.value.hint)
    assert revocations(tmp_path, "CLIENT_payments") == before


def test_an_older_copy_of_the_list_lets_nobody_in_again_nor_does_a_clock_ahead(tmp_path: Path) -> None:
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW + datetime.timedelta(days=2))  # signed by a clock ahead
    copy, first = (tmp_path / "users.json").read_text(), user_key(tmp_path, "payments")
    jwtform.write(Keyring(tmp_path), order(form="jwt", revoke=("payments",)), NOW)
    assert revocations(tmp_path, "CLIENT_payments")[first] > (NOW + datetime.timedelta(days=2)).timestamp()
    (tmp_path / "users.json").write_text(copy)
    jwtform.write(Keyring(tmp_path), order(form="jwt"), NOW)
    assert first in revocations(tmp_path, "CLIENT_payments")
