"""Numbers as people read them: sizes, rates, durations; and columns that line up."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from diachunk.errors import printable

_COMMIT = re.compile("[0-9a-f]{40}")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(size_bytes: float) -> str:
    """Bytes in decimal units, at most 8 characters: "0 B", "12.3 kB", "307.0 MB"."""
    value = float(abs(size_bytes))
    sign = "-" if size_bytes < 0 else ""
    unit = 0
    # 999.95 would be printed as 1000.0
    while value >= (999.5 if unit == 0 else 999.95) and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{sign}{value:.0f} B" if unit == 0 else f"{sign}{value:.1f} {_UNITS[unit]}"


def ref(name: str) -> str:
    """NAME@REVISION for a table: of a commit, 12 digits, which name it well enough."""
    head, at, revision = name.rpartition("@")
    return f"{head}@{revision[:12]}" if at and _COMMIT.fullmatch(revision) else name


def rate(rate_bps: float) -> str:
    """Bytes a second."""
    return f"{size(rate_bps)}/s"


def duration(seconds: float) -> str:
    """For sentences: "0.4 s", "12 s", "2 min 5 s", "3 h 20 min", "2 days"."""
    if seconds < 0.95:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 2 * 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {minutes} min" if minutes else "")
    return f"{whole // 86400} days"


def about(seconds: float) -> str:
    """An estimate, in as few digits as it deserves: "a few seconds", "about 2 min", "about 3 h"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 90:
        return f"about {max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    if seconds < 2 * 86400:
        return f"about {round(seconds / 3600)} h"
    return f"about {round(seconds / 86400)} days"


def clock(seconds: float | None) -> str:
    """For columns, at most 7 characters: "0:32", "1:02:03"; "" if unknown, "days" where it is that long."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole >= 100 * 3600:
        return f"{whole // 86400} days" if whole < 1000 * 86400 else "ages"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def ago(seconds: float) -> str:
    """How long since: "just now", "5 min ago", "3 days ago"."""
    for unit_s, name in ((86400, "day"), (3600, "h"), (60, "min")):
        count = int(max(0.0, seconds) // unit_s)  # a clock that was set back makes it less than nothing
        if count:
            plural = "s" if name == "day" and count > 1 else ""
            return f"{count} {name}{plural} ago"
    return "just now"


def percent(part: float, whole: float) -> str:
    """Rounded down, so that 100% means all of it."""
    return f"{int(part * 100 // whole) if whole else 100}%"


def count(number: int, what: str) -> str:
    """ "1 file", "1,612 files"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def clip(text: str, width: int) -> str:
    """Cuts `text` to `width` columns, its end replaced by an ellipsis."""
    text = printable(text)
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def columns(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines with the cells of each row under each other, two spaces apart.

    Args:
        right: numbers of the columns to set flush right.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return []
    flush_right = frozenset(right)
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    return [
        "  ".join(
            cell.rjust(width) if index in flush_right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def command(*words: str) -> str:
    """A command line to copy and paste."""
    return f"`{shlex.join(('diachunk', *words))}`"
