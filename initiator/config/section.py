"""What all sections of the settings are made of, and those that stand by themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Section(BaseModel):
    """Base of all sections: frozen, strict about names and types (`true` is no 1, and "1" is none either)."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)


class FreezeSettings(Section):
    held: Literal["wait", "refuse"] = Field(
        "wait", description="what becomes of requests while they are frozen or the stop line is reached"
    )
