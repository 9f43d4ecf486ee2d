"""A folder with a configuration in plain form: a login for every user, by password, NKey or certificate."""

from __future__ import annotations

import datetime
from functools import partial

from initiator.core.accounts import NODE, Layout
from initiator.errors import Code, HaltError
from initiator.natsconfig import certificates, folder, nkey, plain
from initiator.natsconfig.keyring import Keyring, unusable
from initiator.natsconfig.order import ABOUT, Authority, Order, layout_of, logins_of, server_text


def write(keyring: Keyring, order: Order, now: datetime.datetime) -> None:
    """Make what is missing and write the accounts.

    Raises:
        HaltError: a name, a file or the folder is not as it must be.
    """
    found = layout_of(order)
    for name in folder.hold(keyring, order, found):
        folder.let_go(keyring, name)
    for name in order.revoke:
        folder.void(keyring, name)
    mutual = order.login == "mtls"
    authority = Authority(keyring, order.days, now) if order.hosts else None
    if authority is not None:
        authority.server(order.hosts)
    shown, fields = _users(keyring, order, found, authority)
    keyring.file("accounts.conf", ABOUT + plain.accounts_block(found, shown))
    keyring.file("nats.conf", server_text(keyring, order, mutual=mutual), once=True)
    logins_of(keyring, order, found, fields)
    folder.forget(keyring, order, found)


def _users(
    keyring: Keyring, order: Order, found: Layout, authority: Authority | None
) -> tuple[dict[str, plain.Login], dict[str, dict[str, str]]]:
    """By user: what the server knows of its login, and the settings that log it in."""
    shown: dict[str, plain.Login] = {}
    fields: dict[str, dict[str, str]] = {}
    for _, user in found.users():
        name = user.name
        if order.login == "mtls" and authority is not None:
            authority.user(name)
            shown[name] = {"user": plain.quoted(certificates.subject(name))}
            fields[name] = {"cert_file": f"logins/{name}.pem", "key_file": f"logins/{name}.key"}
        # mpcium's nodes know no NKeys (wire trap 4)
        elif order.login == "password" or name == NODE:
            shown[name] = by_password(keyring, name)
            fields[name] = {"user": name, "password_file": f"logins/{name}.password"}
        else:
            seed = keyring.secret(f"logins/{name}.nk", partial(nkey.make, nkey.USER))
            shown[name] = {"nkey": pair_of(keyring, f"logins/{name}.nk", seed, nkey.USER).public}
            fields[name] = {"nkey_seed_file": f"logins/{name}.nk"}
    return shown, fields


def pair_of(keyring: Keyring, name: str, seed: bytes, kind: int) -> nkey.Pair:
    """The key in a file. Raises HaltError where it holds none."""
    try:
        return nkey.Pair(seed, kind)
    except ValueError as error:
        raise unusable(keyring.path(name), str(error)) from None


def by_password(keyring: Keyring, user: str) -> plain.Login:
    """A login by password, of which the server is told the hash.

    Raises:
        HaltError: there is no library for bcrypt, or the password is none for it.
    """
    try:
        from initiator.natsconfig import passwords
    except ImportError:
        reason = "passwords need the library bcrypt, for the hashes that the server's configuration holds"
        hint = "pip install 'initiator[nats]'"
        raise HaltError(Code.CONFIG_INVALID, reason, field="--login", hint=hint) from None
    name, hashes = f"logins/{user}.password", f"logins/{user}.bcrypt"
    word = keyring.secret(name, passwords.make).rstrip(b"\r\n")
    if problem := passwords.problem(word):
        raise unusable(keyring.path(name), problem)
    known = keyring.secret(hashes, lambda: passwords.hashed(word))
    if not passwords.matches(word, known):  # its password was made anew
        known = passwords.hashed(word)
        keyring.replace(hashes, known)
    return {"user": plain.quoted(user), "password": plain.quoted(known.decode())}
