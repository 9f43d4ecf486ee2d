"""The base of all sections of the settings, and the types that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from initiator.core.addresses import is_address, without_password

Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Section(BaseModel):
    """Base of all sections: frozen, strict about names and types (`true` is no 1, and "1" is none either).

    What came is never quoted in an error's text: it may be a secret in the wrong place.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, strict=True, hide_input_in_errors=True
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Without logins that stand in addresses: a repr ends in logs and tracebacks."""
        for name, value in super().__repr_args__():
            yield name, shown(value)


def shown(value: Any) -> Any:
    """A setting as it may be shown: an address without the login that may stand in it."""
    if isinstance(value, str) and is_address(value):
        return without_password(value)
    return tuple(shown(item) for item in value) if isinstance(value, tuple) else value
