"""A folder with a configuration in operator mode: an operator, accounts and users as JWTs, and credentials files.

What was minted stays as long as it says what it should: a second run with one client more changes the daemon's
account, which gives something to one more, and adds an account. Whoever holds `keys/` may change everything.
"""

from __future__ import annotations

import datetime
import json
import time
from functools import partial

from initiator.core.accounts import NODE, NODES, SYSTEM, Account, Grant, Layout, User
from initiator.errors import Code, HaltError
from initiator.natsconfig import claims, nkey, plain, token
from initiator.natsconfig.keyring import Keyring
from initiator.natsconfig.order import (
    ABOUT,
    Authority,
    Order,
    hold_form,
    layout_of,
    logins_of,
    server_text,
    tls_block,
    url_of,
)
from initiator.natsconfig.plainform import by_password, pair_of

_JWT = ("-----BEGIN NATS USER JWT-----\n", "\n------END NATS USER JWT------\n")
_SEED = ("-----BEGIN USER NKEY SEED-----\n", "\n------END USER NKEY SEED------\n")


def write(keyring: Keyring, order: Order, now: datetime.datetime) -> None:
    """Make what is missing and write the accounts.

    Raises:
        HaltError: a name, a file or the folder is not as it must be.
    """
    found = layout_of(order)
    hold_form(keyring, order)
    if order.hosts:
        Authority(keyring, order.days, now).server(order.hosts)
    mint = _Mint(keyring, order, found, int(now.timestamp()))
    for name in order.revoke:
        mint.revoke(name)
    keyring.file("accounts.conf", ABOUT + mint.accounts())
    tls = tls_block(keyring.folder, mutual=False).replace("\n", "\n  ") if order.hosts else ""
    inside = f"\n  listen: {json.dumps(order.leaf_listen)}\n  {tls}".rstrip()
    more = f"# the nodes' own server comes in here (leaf.conf)\nleafnodes {{{inside}\n}}"
    keyring.file("nats.conf", server_text(keyring, order, mutual=False, more=more), once=True)
    keyring.file("leaf.conf", _leaf(keyring, order), once=True)
    fields = {user.name: mint.login(account, user) for account, user in found.users()}
    fields[NODE] = {"user": NODE, "password_file": f"logins/{NODE}.password"}
    logins_of(keyring, order, found, fields, nodes_at=url_of(order, order.nodes_listen))


def _leaf(keyring: Keyring, order: Order) -> str:
    """The nodes' own server: they know no credentials files, only passwords and certificates (wire trap 4)."""
    login = plain.user_line(User(name=NODE), by_password(keyring, NODE))
    remote = {
        "url": url_of(order, order.leaf_listen).replace("nats://", "nats-leaf://"),
        "account": NODES,
        "credentials": str(keyring.path(f"logins/{NODE}.creds")),
    }
    fields = ", ".join(f"{name}: {json.dumps(value)}" for name, value in remote.items())
    if order.hosts:
        fields += f", tls {{ ca_file: {json.dumps(str(keyring.path('tls/ca.pem')))} }}"
    tls = tls_block(keyring.folder, mutual=False) + "\n" if order.hosts else ""
    return f"""# Written once by `initiator nats-config`, and yours from then on: the server that the nodes log in to.
# It holds no streams of its own; everything passes on into the account {NODES} of the others' server.
server_name: nats-nodes-1
listen: {json.dumps(order.nodes_listen)}
max_payload: 1MB
{tls}accounts {{
  {NODES} {{ users: [ {{ {login} }} ] }}
}}
leafnodes {{ remotes: [ {{ {fields} }} ] }}
# without it a server that holds no streams keeps JetStream's subjects to itself; nats-server 2.15 warns of its name
default_js_domain: {{ {NODES}: "" }}
"""


class _Mint:
    """Everything that the operator's and the accounts' keys sign."""

    def __init__(self, keyring: Keyring, order: Order, found: Layout, now: int) -> None:
        self._keyring, self._order, self._found, self._now = keyring, order, found, now
        self._operator = self._key("keys/operator.nk", nkey.OPERATOR)
        self._keys = {one.name: self._key(f"keys/{one.name}.nk", nkey.ACCOUNT) for one in found.accounts}
        self._names = {name: pair.public for name, pair in self._keys.items()}

    def _key(self, name: str, kind: int) -> nkey.Pair:
        return pair_of(self._keyring, name, self._keyring.secret(name, partial(nkey.make, kind)), kind)

    # --- accounts

    def accounts(self) -> str:
        """`accounts.conf`."""
        about = claims.operator() | {"system_account": self._names[SYSTEM]}
        operator = self._token("jwt/operator.jwt", self._operator, self._operator.public, "initiator", about)
        preload = "\n".join(f"  {self._names[one.name]}: {self._account(one)}" for one in self._found.accounts)
        return (
            f"operator: {operator}\nsystem_account: {self._names[SYSTEM]}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
        )

    def _account(self, one: Account) -> str:
        revoked = self._revoked().get(one.name)
        about = claims.account(self._found, one, self._names, self._activation, revoked)
        return self._token(f"jwt/{one.name}.jwt", self._operator, self._names[one.name], one.name, about)

    def _activation(self, grant: Grant) -> str:
        """Made for each comparison, and used only if something else changed: see `token.says`."""
        giver, taker = self._keys[grant.giver], self._names[grant.taker]
        return token.mint(giver, taker, grant.subject, claims.activation(grant), self._now)

    def _token(self, name: str, issuer: nkey.Pair, subject: str, called: str, about: claims.Claims) -> str:
        path = self._keyring.path(name)
        known = path.read_text("utf-8").strip() if path.exists() else ""
        if not token.says(known, issuer, subject, about):
            known = token.mint(issuer, subject, called, about, self._now)
        self._keyring.file(name, f"{known}\n")
        return known

    # --- users

    def login(self, account: Account, user: User) -> dict[str, str]:
        """A user's credentials file: its key stays, its JWT is minted anew where it may other things or soon ends."""
        name = f"logins/{user.name}.creds"
        content = self._keyring.secret(name, partial(self._new_login, account, user)).decode()
        if not self._holds(content, account, user):
            self._keyring.replace(name, self._credentials(account, user, _inside(content, _SEED)))
        return {"creds_file": name}

    def _new_login(self, account: Account, user: User) -> bytes:
        return self._credentials(account, user, nkey.make(nkey.USER).decode())

    def _credentials(self, account: Account, user: User, seed: str) -> bytes:
        pair = pair_of(self._keyring, f"logins/{user.name}.creds", seed.encode(), nkey.USER)
        expires = self._now + self._order.days * 86_400 if self._order.expire else None
        about = claims.user(user)
        jwt = token.mint(self._keys[account.name], pair.public, user.name, about, self._now, expires)
        return f"{_JWT[0]}{jwt}{_JWT[1]}\n{_SEED[0]}{seed}{_SEED[1]}".encode()

    def _holds(self, content: str, account: Account, user: User) -> bool:
        jwt, seed = _inside(content, _JWT), _inside(content, _SEED)
        public = pair_of(self._keyring, f"logins/{user.name}.creds", seed.encode(), nkey.USER).public
        if not token.says(jwt, self._keys[account.name], public, claims.user(user)):
            return False
        expires = token.body_of(jwt).get("exp")
        if not self._order.expire:
            return expires is None
        return expires is not None and expires - self._now > self._order.days * 86_400 / 2

    # --- revocation

    def revoke(self, user: str) -> None:
        """What this user holds is void from now on; it gets a new login."""
        path = self._keyring.path(f"logins/{user}.creds")
        if not path.exists():
            raise HaltError(Code.CONFIG_INVALID, "expected credentials to revoke, there are none", field=str(path))
        account = next(account.name for account, one in self._found.users() if one.name == user)
        name = f"logins/{user}.creds"
        public = pair_of(self._keyring, name, _inside(path.read_text("utf-8"), _SEED).encode(), nkey.USER).public
        revoked = self._revoked()
        revoked.setdefault(account, {})[public] = max(self._now, int(time.time()))
        self._keyring.file("revoked.json", json.dumps(revoked, indent=2) + "\n")
        path.unlink()

    def _revoked(self) -> dict[str, dict[str, int]]:
        path = self._keyring.path("revoked.json")
        found: dict[str, dict[str, int]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return found


def _inside(content: str, marks: tuple[str, str]) -> str:
    return content.partition(marks[0])[2].partition(marks[1])[0].strip()
