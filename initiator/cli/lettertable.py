"""Dead letters as a table. On a terminal its lines fit the width; in a pipe everything stands in full."""

from __future__ import annotations

from collections.abc import Sequence

from initiator.cli.letters import NODES, NOTHING
from initiator.core import events
from initiator.core.deadletter import DeadLetter
from initiator.core.text import plain

COLUMNS = ("SEQ", "TIME", "CLIENT", "OP", "ID", "CODE", "OUTCOME", "FIELD", "REASON")
_GAP = "  "
# what may be cut on a terminal, and to no less than can be read
_LEAST = {"CLIENT": 8, "ID": 12, "FIELD": 8, "REASON": 20}


def table(letters: Sequence[DeadLetter], width: int | None) -> list[str]:
    """A line a letter under a heading.

    Args:
        width: of the terminal: times without milliseconds, long texts cut. None: nothing is cut.
    """
    rows = [COLUMNS, *(_row(letter, short=width is not None) for letter in letters)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    if width is not None:
        _fit(widths, width)
    return [_line(row, widths) for row in rows]


def _row(letter: DeadLetter, *, short: bool) -> tuple[str, ...]:
    time = events.format_time(letter.time)
    texts = (letter.operation_id or "", letter.code, letter.outcome, letter.field, letter.reason)
    return (
        str(letter.sequence),
        f"{time[: -len('.000Z')]}Z" if short else time,
        letter.client or NODES,
        letter.operation.value,
        *(plain(text) or NOTHING for text in texts),
    )


def _fit(widths: list[int], width: int) -> None:
    """Cut the reason first, then whatever is widest."""
    reason = len(COLUMNS) - 1
    over = sum(widths) + len(_GAP) * reason - width
    while over > 0:
        can = [at for at, name in enumerate(COLUMNS) if name in _LEAST and widths[at] > _LEAST[name]]
        if not can:
            return
        at = reason if reason in can else max(can, key=widths.__getitem__)
        widths[at] -= 1
        over -= 1


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [text if len(text) <= size else text[: size - 1] + "…" for text, size in zip(row, widths, strict=True)]
    middle = (text.ljust(size) for text, size in zip(cells[1:-1], widths[1:-1], strict=True))
    return _GAP.join([cells[0].rjust(widths[0]), *middle, cells[-1]])
