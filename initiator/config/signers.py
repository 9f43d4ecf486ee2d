"""Settings of the signers: KMS with its Regions, credentials and patience, and local keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from initiator.config.section import Seconds, Section
from initiator.core import keynames


class KmsRegionSettings(Section):
    """One Region in which the key can be used."""

    region: str = Field(min_length=1, max_length=64, examples=["eu-central-1"], description="AWS Region")
    key_id: str | None = Field(
        None, description="the key's name there; default: signer.kms.key_id, if that is an mrk-…"
    )
    endpoint_url: str | None = Field(None, description="KMS endpoint there, for VPC endpoints and emulators")


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsTarget:
    """One Region, with everything that was left to defaults filled in; a Region of None is AWS's own chain's."""

    region: str | None
    key_id: str
    endpoint_url: str | None


class KmsSettings(Section):
    region: str | None = Field(None, description="AWS Region; default: AWS's own chain (AWS_REGION, profile)")
    key_id: str | None = Field(None, description="key id, key ARN, alias/NAME or alias ARN")
    endpoint_url: str | None = Field(None, description="KMS endpoint, for VPC endpoints and emulators")
    regions: tuple[KmsRegionSettings, ...] = Field(
        (), strict=False, description="instead of region and endpoint_url: Regions in the order in which they are tried"
    )
    access_key_id: SecretStr | None = Field(
        None, description="static credentials, together with secret_access_key; environment or file only"
    )
    secret_access_key: SecretStr | None = Field(None, description="static credentials; environment or file only")
    session_token: SecretStr | None = Field(None, description="for temporary static credentials")
    access_key_id_file: str | None = Field(None, description="file that holds access_key_id")
    secret_access_key_file: str | None = Field(None, description="file that holds secret_access_key")
    session_token_file: str | None = Field(None, description="file that holds session_token")
    allow_static_credentials_in_production: bool = Field(
        False, description="static credentials with environment: production"
    )
    profile: str | None = Field(None, description="AWS profile name")
    always_digest: bool = Field(
        False, description="send SHA-256 with MessageType DIGEST at any length, not only above 4,096 bytes"
    )
    threads: int = Field(32, ge=1, le=512, description="concurrent KMS calls to one Region")
    connect_timeout_s: Seconds = Field(2.0, description="TCP and TLS to KMS")
    read_timeout_s: Seconds = Field(3.0, description="wait for KMS's answer")
    retry_base_s: Seconds = Field(0.05, description="first backoff of our own retries; doubles with jitter")
    retry_max_s: Seconds = Field(2.0, description="longest backoff between two KMS calls")
    breaker_failures: int = Field(
        5,
        ge=1,
        le=1000,
        description="failures in a row after which a Region is left alone (one timeout, if others are left)",
    )
    breaker_pause_s: Seconds = Field(1.0, description="how long at first, until one call tries it; doubles with jitter")
    breaker_pause_max_s: Seconds = Field(10.0, description="longest such pause")
    max_signs_per_s: float = Field(
        0.0, ge=0, le=100_000, description="our share of KMS's quota, calls a second; 0: no limit"
    )
    limit_over: Literal["replica", "all"] = Field(
        "replica", description="whom max_signs_per_s limits: each replica, or all together (kept in JetStream)"
    )
    burst_signs: int = Field(10, ge=1, le=100_000, description="calls that may go at once after a quiet while")

    @model_validator(mode="after")
    def _pauses(self) -> Self:
        if self.breaker_pause_max_s < self.breaker_pause_s:
            raise ValueError("breaker_pause_max_s must be at least breaker_pause_s")
        return self

    @model_validator(mode="after")
    def _each_region(self) -> Self:
        if self.regions and (self.region or self.endpoint_url):
            raise ValueError("regions stands instead of region and endpoint_url: name these in the list alone")
        names = [entry.region for entry in self.regions]
        for index, entry in enumerate(self.regions):
            if entry.region in names[:index]:
                raise ValueError(f"regions.{index}.region: {entry.region} stands there twice")
            if problem := self._key_problem(entry):
                raise ValueError(f"regions.{index}.key_id: {problem}")
        return self

    def _key_problem(self, entry: KmsRegionSettings) -> str | None:
        if not self.key_id and not any(other.key_id for other in self.regions):
            return None  # no key at all: told when the signer is made, as without a list
        if not entry.key_id and not self.key_id:
            return "expected the key's name in this Region, here or as signer.kms.key_id of all"
        key_id = self._key_in(entry)
        if key_id is None:
            return "expected this Region's own key id, since signer.kms.key_id names no multi-Region key (mrk-…)"
        named = keynames.region_of(key_id)
        return None if named in (None, entry.region) else f"expected a key in {entry.region}, got an ARN of {named}"

    def _key_in(self, entry: KmsRegionSettings) -> str | None:
        """The key's name in this Region, or None where it cannot be known."""
        if entry.key_id or not self.key_id:
            return entry.key_id
        alone = self.key_id if len(self.regions) == 1 else None
        return keynames.name_in(self.key_id, entry.region) or alone

    @property
    def targets(self) -> tuple[KmsTarget, ...]:
        """Where to sign, in order; empty where no key is named. Without a list it is a list of one."""
        if not self.regions:
            single = KmsTarget(region=self.region, key_id=self.key_id or "", endpoint_url=self.endpoint_url)
            return (single,) if self.key_id else ()
        return tuple(
            KmsTarget(region=entry.region, key_id=key_id, endpoint_url=entry.endpoint_url)
            for entry in self.regions
            if (key_id := self._key_in(entry))
        )

    @model_validator(mode="after")
    def _together(self) -> Self:
        key_id = self.access_key_id or self.access_key_id_file
        secret = self.secret_access_key or self.secret_access_key_file
        if bool(key_id) != bool(secret):
            raise ValueError("access_key_id and secret_access_key come together")
        if (self.session_token or self.session_token_file) and not key_id:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        return self

    @property
    def has_static_credentials(self) -> bool:
        return bool(self.access_key_id or self.access_key_id_file)


class LocalKeySettings(Section):
    path: str | None = Field(None, description="key file: mpcium's .key (hex) or .key.age, or PEM")
    passphrase: SecretStr | None = Field(
        None, description="passphrase of an .age file; environment or passphrase_file only"
    )
    passphrase_file: str | None = Field(None, description="file that holds the passphrase")


class SignerSettings(Section):
    type: Literal["kms", "local"] = Field("kms", description="kms, or local (a key file; development)")
    allow_local_in_production: bool = Field(False, description="a local key with environment: production")
    kms: KmsSettings = Field(default_factory=KmsSettings)
    local: LocalKeySettings = Field(default_factory=LocalKeySettings)
