"""Times to wait, as options take them."""

from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """Seconds, more than nothing, and an end to it.

    Args:
        most: the longest.
        least: the shortest.
    """

    def __init__(self, most: float, least: float = 0.0) -> None:
        super().__init__(least, most, min_open=least <= 0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):  # it is neither less nor more than anything
            self.fail("expected seconds, got nan", param, ctx)
        return found
