"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^ *(`{3,}|~{3,})(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it stands, from the top of the repository.
        heading: the heading above it.
        language: the first word after the fence; `note` is the rest.
    """

    page: str
    line: int
    heading: str
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language or 'no language'})"

    @property
    def is_directive(self) -> bool:
        """For the site's builder, which fails where it is wrong."""
        return self.language.startswith("{")


def pages() -> list[Path]:
    """All of them."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """All blocks, or those of these languages, of all pages or of one."""
    found = [block for path in pages() for block in parse(str(path.relative_to(ROOT)), path.read_text())]
    return [
        block
        for block in found
        if (not languages or block.language in languages) and (page is None or block.page == page)
    ]


def parse(page: str, text: str) -> Iterator[Block]:
    """The blocks of one page, in order."""
    fence, heading, start, info = "", "", 0, ""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            fence, info, start, lines = match[1], match[2].strip(), number, []
        elif fence and match and match[1].startswith(fence) and not match[2].strip():
            language, _, note = info.partition(" ")
            body = "".join(f"{one}\n" for one in lines)
            yield Block(page=page, line=start, heading=heading, language=language, note=note, text=body)
            fence = ""
        elif fence:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert not fence, f"{page}:{start}: the block has no end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a reader types, and what the page shows then: "" where it shows nothing."""

    page: str
    line: int
    text: str
    shown: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands(block: Block) -> list[Command]:
    """`console`: what follows each `$ `, and the lines below it. `sh`: each line but comments; nothing is shown."""
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if block.language == "sh":
            if line.strip() and not line.startswith("#"):
                found.append(Command(page=block.page, line=number, text=line, shown=""))
        elif line.startswith("$ "):
            found.append(Command(page=block.page, line=number, text=line[2:], shown=""))
        else:
            assert found, f"{block}: a console block begins with `$ `"
            last = found.pop()
            found.append(Command(page=last.page, line=last.line, text=last.text, shown=f"{last.shown}{line}\n"))
    return found
