"""A folder with a configuration in operator mode: an operator, accounts and users as JWTs, and credentials files.

What was minted stays as long as it says what it should: a second run with one client more changes the daemon's
account, which gives something to one more, and adds an account. Whoever holds `keys/` may change everything. A JWT
holds as long as its account does, unless its key is revoked there: see `userkeys`.
"""

from __future__ import annotations

import datetime
from functools import partial

from initiator.core.accounts import NODE, NODES, SYSTEM, Account, Grant, Layout, User
from initiator.natsconfig import claims, folder, nkey, plain, token
from initiator.natsconfig.keyring import Keyring
from initiator.natsconfig.order import ABOUT, Authority, Order, layout_of, logins_of, server_text, tls_block, url_of
from initiator.natsconfig.plainform import by_password, pair_of
from initiator.natsconfig.userkeys import UserKeys

_JWT = ("-----BEGIN NATS USER JWT-----\n", "\n------END NATS USER JWT------\n")
_SEED = ("-----BEGIN USER NKEY SEED-----\n", "\n------END USER NKEY SEED------\n")


def write(keyring: Keyring, order: Order, now: datetime.datetime) -> None:
    """Make what is missing and write the accounts.

    Raises:
        HaltError: a name, a file or the folder is not as it must be.
    """
    found = layout_of(order)
    going = folder.hold(keyring, order, found)
    if order.hosts:
        Authority(keyring, order.days, now).server(order.hosts)
    for name in order.revoke:
        folder.void(keyring, name)
    for name, account in going.items():
        _let_go(keyring, found, name, account)
    mint = _Mint(keyring, order, found, int(now.timestamp()))
    fields = {user.name: mint.login(account, user) for account, user in found.users()}
    keyring.file("accounts.conf", ABOUT + mint.accounts())
    keyring.file("leaf-accounts.conf", _leaf_accounts(keyring))
    tls = tls_block(keyring.folder, mutual=False).replace("\n", "\n  ") if order.hosts else ""
    inside = f"\n  listen: {plain.quoted(order.leaf_listen)}\n  {tls}".rstrip()
    more = f"# the nodes' own server comes in here (leaf.conf)\nleafnodes {{{inside}\n}}"
    keyring.file("nats.conf", server_text(keyring, order, mutual=False, more=more), once=True)
    keyring.file("leaf.conf", _leaf(keyring, order), once=True)
    fields[NODE] = {"user": NODE, "password_file": f"logins/{NODE}.password"}
    logins_of(keyring, order, found, fields, nodes_at=url_of(order, order.nodes_listen))
    folder.forget(keyring, order, found)


def _let_go(keyring: Keyring, found: Layout, user: str, account: str) -> None:
    """Take a login's files away, and the account's where it goes with it: then all that it signed is void."""
    folder.let_go(keyring, user)
    if all(one.name != account for one in found.accounts):
        keyring.remove(f"jwt/{account}.jwt")
        keyring.remove(f"keys/{account}.nk")


def _leaf_accounts(keyring: Keyring) -> str:
    """The nodes' login: they know no credentials files, only passwords and certificates (wire trap 4)."""
    login = plain.user_line(User(name=NODE), by_password(keyring, NODE))
    return f"{ABOUT}accounts {{\n  {NODES} {{ users: [ {{ {login} }} ] }}\n}}\n"


def _leaf(keyring: Keyring, order: Order) -> str:
    """The nodes' own server."""
    remote = {
        "url": url_of(order, order.leaf_listen).replace("nats://", "nats-leaf://"),
        "account": NODES,
        "credentials": str(keyring.path(f"logins/{NODE}.creds")),
    }
    fields = ", ".join(f"{name}: {plain.quoted(value)}" for name, value in remote.items())
    if order.hosts:
        fields += f", tls {{ ca_file: {plain.quoted(str(keyring.path('tls/ca.pem')))} }}"
    tls = tls_block(keyring.folder, mutual=False) + "\n" if order.hosts else ""
    return f"""# Written once by `initiator nats-config`, and yours from then on: the server that the nodes log in to.
# It holds no streams of its own; everything passes on into the account {NODES} of the others' server.
server_name: nats-nodes-1
listen: {plain.quoted(order.nodes_listen)}
max_payload: 1MB
{tls}include leaf-accounts.conf
leafnodes {{ remotes: [ {{ {fields} }} ] }}
# without it a server that holds no streams keeps JetStream's subjects to itself; nats-server 2.15 warns of its name
default_js_domain: {{ {NODES}: "" }}
"""


class _Mint:
    """Everything that the operator's and the accounts' keys sign."""

    def __init__(self, keyring: Keyring, order: Order, found: Layout, now: int) -> None:
        self._keyring, self._order, self._found, self._now = keyring, order, found, now
        self._users = UserKeys(keyring, begun=not keyring.path("keys/operator.nk").exists())
        self._operator = self._key("keys/operator.nk", nkey.OPERATOR)
        self._keys = {one.name: self._key(f"keys/{one.name}.nk", nkey.ACCOUNT) for one in found.accounts}
        self._names = {name: pair.public for name, pair in self._keys.items()}

    def _key(self, name: str, kind: int) -> nkey.Pair:
        return pair_of(self._keyring, name, self._keyring.secret(name, partial(nkey.make, kind)), kind)

    # --- accounts

    def accounts(self) -> str:
        """`accounts.conf`; all logins are made before: keys that are in use no more are revoked in it."""
        self._users.close()
        about = claims.operator() | {"system_account": self._names[SYSTEM]}
        operator = self._token("jwt/operator.jwt", self._operator, self._operator.public, "initiator", about)
        preload = "\n".join(f"  {self._names[one.name]}: {self._account(one)}" for one in self._found.accounts)
        return (
            f"operator: {operator}\nsystem_account: {self._names[SYSTEM]}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
        )

    def _account(self, one: Account) -> str:
        revoked = self._revoked_before(one) | self._users.revoked(one.name)
        about = claims.account(self._found, one, self._names, self._activation, revoked)
        return self._token(f"jwt/{one.name}.jwt", self._operator, self._names[one.name], one.name, about)

    def _revoked_before(self, one: Account) -> dict[str, int]:
        """What the account's JWT revokes: no older list of keys takes that back."""
        known = self._keyring.text(f"jwt/{one.name}.jwt")
        try:
            body = token.body_of(known or "")
        except ValueError:
            return {}
        same = body.get("sub") == self._names[one.name]
        return dict(body.get("nats", {}).get("revocations", {})) if same else {}

    def _activation(self, grant: Grant) -> str:
        """Made for each comparison, and used only if something else changed: see `token.says`."""
        giver, taker = self._keys[grant.giver], self._names[grant.taker]
        return token.mint(giver, taker, grant.subject, claims.activation(grant), self._now)

    def _token(self, name: str, issuer: nkey.Pair, subject: str, called: str, about: claims.Claims) -> str:
        known = (self._keyring.text(name) or "").strip()
        if not token.says(known, issuer, subject, about):
            known = token.mint(issuer, subject, called, about, self._now)
        self._keyring.file(name, f"{known}\n")
        return known

    # --- users

    def login(self, account: Account, user: User) -> dict[str, str]:
        """A user's credentials file: its key stays, its JWT is minted anew where it may other things or soon ends."""
        name = f"logins/{user.name}.creds"
        self._keyring.secret(name, partial(self._new_login, account, user))
        content = self._keyring.text(name) or ""
        public = pair_of(self._keyring, name, _inside(content, _SEED).encode(), nkey.USER).public
        self._users.use(account.name, public, name)
        if not self._holds(content, account, user, public):
            self._keyring.replace(name, self._credentials(account, user, _inside(content, _SEED)))
        return {"creds_file": name}

    def _new_login(self, account: Account, user: User) -> bytes:
        seed = nkey.make(nkey.USER)
        self._users.note(account.name, nkey.Pair(seed, nkey.USER).public)
        return self._credentials(account, user, seed.decode())

    def _credentials(self, account: Account, user: User, seed: str) -> bytes:
        pair = pair_of(self._keyring, f"logins/{user.name}.creds", seed.encode(), nkey.USER)
        expires = self._now + self._order.days * 86_400 if self._order.expire else None
        about = claims.user(user)
        jwt = token.mint(self._keys[account.name], pair.public, user.name, about, self._now, expires)
        return f"{_JWT[0]}{jwt}{_JWT[1]}\n{_SEED[0]}{seed}{_SEED[1]}".encode()

    def _holds(self, content: str, account: Account, user: User, public: str) -> bool:
        jwt = _inside(content, _JWT)
        if not token.says(jwt, self._keys[account.name], public, claims.user(user)):
            return False
        expires = token.body_of(jwt).get("exp")
        if not self._order.expire:
            return expires is None
        return expires is not None and expires - self._now > self._order.days * 86_400 / 2


def _inside(content: str, marks: tuple[str, str]) -> str:
    return content.partition(marks[0])[2].partition(marks[1])[0].strip()
