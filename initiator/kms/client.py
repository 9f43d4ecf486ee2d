"""The boto3 client: built once, used from a pool of threads of its own.

Clients are thread-safe; Sessions are not, so each is used here alone. Retries are ours (`signer`), so botocore makes
one attempt only. Connections are kept alive by TCP, since idle ones vanish silently behind NAT.
"""

from __future__ import annotations

from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

from initiator.config.load import read_secret
from initiator.config.signers import KmsSettings, KmsTarget
from initiator.kms.credentials import SnapshotCredentials


def build_client(settings: KmsSettings, target: KmsTarget, credentials: SnapshotCredentials) -> Any:
    """A KMS client for one Region that signs with `credentials` and resolves none itself.

    Raises:
        botocore.exceptions.BotoCoreError: no Region, an unknown profile.
        ValueError: an endpoint URL of another form.
    """
    session = _session(settings, target.region)
    session.register_component("credential_provider", credentials)
    session.set_default_client_config(_config(settings))
    return boto3.Session(botocore_session=session, region_name=target.region).client(
        "kms", endpoint_url=target.endpoint_url
    )


def load_credentials(settings: KmsSettings) -> Credentials:
    """Static credentials, or what AWS's default chain finds: environment, profile, IRSA, Pod Identity, instance role.

    Raises:
        botocore.exceptions.BotoCoreError: there are none, or their source failed.
        HaltError: a secret's file cannot be read.
    """
    access_key_id = read_secret(settings.access_key_id, settings.access_key_id_file)
    secret_access_key = read_secret(settings.secret_access_key, settings.secret_access_key_file)
    if access_key_id and secret_access_key:
        token = read_secret(settings.session_token, settings.session_token_file)
        return Credentials(access_key_id, secret_access_key, token, method="settings")
    regions: list[str | None] = [entry.region for entry in settings.regions]
    *others, last = regions or [settings.region]
    for region in others:
        try:
            return _resolve(settings, region)
        except (NoCredentialsError, ProfileNotFound):
            raise
        except (BotoCoreError, ClientError):
            continue  # the chain may ask STS, which lives in a Region as well
    return _resolve(settings, last)


def _resolve(settings: KmsSettings, region: str | None) -> Credentials:
    session = _session(settings, region)
    session.set_default_client_config(_config(settings))  # also for STS, which the chain may ask
    credentials: Credentials | None = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    credentials.get_frozen_credentials()  # asks STS now: here another Region can still be tried
    return credentials


def _session(settings: KmsSettings, region: str | None) -> botocore.session.Session:
    session = botocore.session.Session(profile=settings.profile)
    if region:
        session.set_config_variable("region", region)
    return session


def _config(settings: KmsSettings) -> Config:
    return Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.threads,
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )
