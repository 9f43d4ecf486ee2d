"""`python -m initiator.natsconfig FOLDER`: the accounts of one client, authorizer, auditor and operator, to review.

`accounts.conf` is the plain form with passwords from the server's environment; `claims.json` is what the JWTs of
operator mode say, with names in the place of keys. `initiator nats-config` writes both for a deployment's own parties.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from initiator.core.accounts import ADMIN, Layout, Parties, layout
from initiator.core.model import Operation
from initiator.natsconfig import claims, plain

_ABOUT = """\
# NATS accounts for initiator, as an example to read: `initiator nats-config` writes this file for your own clients,
# with a key, a bcrypt hash or a certificate in the place of each variable. Written by `python -m initiator.natsconfig`.
#
# Why accounts and not permissions: a publish permission does not cover the reply subject of a message. A client that
# shares an account with the daemon can name any subject as its reply, and the server's answer lands there: it could
# overwrite records, forge other clients' events, or put messages on the nodes' subjects. Imports and exports hold.
#
# One CLIENT_ account and one block of exports per client; the name is the token of its subjects. An authorizer is asked
# by the daemon alone. An auditor reads the record, message by message.
"""


def example() -> Layout:
    """One of each."""
    parties = Parties(
        clients={"payments": tuple(Operation)}, authorizers=("risk",), auditors=("audit",), operators=("oncall",)
    )
    return layout(parties)


def accounts_conf() -> str:
    """The text of `accounts.conf`."""
    found = example()
    names = {user.name: user.name.upper().replace("-", "_") for _, user in found.users() if user.name != ADMIN}
    logins = {name: plain.password(name, f"${variable}_PASSWORD") for name, variable in names.items()}
    return f"{_ABOUT}\n{plain.accounts_block(found, logins)}"


def claims_json() -> str:
    """The text of `claims.json`."""
    return json.dumps(claims.as_read(example()), indent=2) + "\n"


def main() -> None:
    """Write both."""
    folder = Path(sys.argv[1])
    (folder / "accounts.conf").write_text(accounts_conf())
    (folder / "claims.json").write_text(claims_json())


if __name__ == "__main__":
    main()
