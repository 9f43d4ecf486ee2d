"""A service's first wallet and first signature.

Reads NATS_URL, ALICE_USER and ALICE_PASSWORD, as `initiator dev --env-file` writes them.
"""

import asyncio
import os
import secrets

from initiator.client import InitiatorClient


async def main() -> None:
    name = os.environ["ALICE_USER"]
    async with InitiatorClient.connect(
        os.environ["NATS_URL"], client=name, user=name, password=os.environ["ALICE_PASSWORD"]
    ) as initiator:
        wallet = await initiator.keygen(f"w_{secrets.token_hex(3)}")
        print(f"wallet {wallet.wallet_id}")
        print(f"  ed25519 public key {wallet.ed25519}")

        signed = await initiator.sign(
            wallet.wallet_id, b"pay 5 to Bob", tx_id=f"tx_{secrets.token_hex(3)}", key_type="ed25519"
        )
        print(f"signature of {signed.tx_id}, verified by the {signed.verified_by}")
        print(f"  {signed.signature.hex()}")


if __name__ == "__main__":
    asyncio.run(main())
