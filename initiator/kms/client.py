"""The boto3 client: built once, used from a pool of threads of its own.

Clients are thread-safe; Sessions are not, so one is used here alone. Retries are ours (`signer`), so botocore makes
one attempt only. Connections are kept alive by TCP, since idle ones vanish silently behind NAT.
"""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from initiator.config.load import read_secret
from initiator.config.schema import KmsSettings


def build_client(settings: KmsSettings) -> Any:
    """A KMS client for these settings; static credentials, or AWS's default chain.

    Raises:
        botocore.exceptions.BotoCoreError: no Region, an unknown profile.
    """
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.threads,
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )
    access_key_id, secret_access_key, session_token = _static(settings)
    session = boto3.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        aws_session_token=session_token,
        profile_name=settings.profile,
        region_name=settings.region,
    )
    return session.client("kms", endpoint_url=settings.endpoint_url, config=config)


def _static(settings: KmsSettings) -> tuple[str | None, str | None, str | None]:
    """Access key id, secret and session token; all None for AWS's default chain."""
    return (
        read_secret(settings.access_key_id, settings.access_key_id_file),
        read_secret(settings.secret_access_key, settings.secret_access_key_file),
        read_secret(settings.session_token, settings.session_token_file),
    )
