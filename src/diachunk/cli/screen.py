"""The live picture on a terminal: bars, what limits, who is in trouble. Fits a window of any size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from diachunk.cli import text
from diachunk.cli.tally import Row, Tally
from diachunk.errors import printable
from diachunk.transfer.progress import Event, How, Notice, SourceStatus

SILENT_S = 3.0
_REFRESH_PER_S = 4
_SOURCES_MAX = 6
_NAME_MAX = 16
_LABEL_MAX = 34
_BAR_MAX = 40
_BAR_MIN = 4
_OTHER_LINES = 6
"""Headings, sum, blank line, what limits, and twice how many more there are."""
_FETCHING = {"": 4, "reused": 8, "fetched": 8, "left": 8, "rate": 10, "eta": 7}
_LEAST_MISSED = ("reused", "fetched", "read", "left", "rate", "eta")
"""The order in which columns go. How long it takes stays longest: it is what one looks for in a narrow window."""
_READING = {"": 4, "read": 8, "left": 8, "rate": 10, "eta": 7}


class Screen:
    """A listener that keeps a picture of a Tally on the terminal while it is entered."""

    def __init__(self, tally: Tally, console: Console | None = None) -> None:
        self._tally = tally
        self._console = console or Console(stderr=True, highlight=False)
        # rich redraws on its own thread
        self._lock = threading.Lock()
        self._live = Live(
            self,
            console=self._console,
            refresh_per_second=_REFRESH_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
            # a pass over files says all in its closing line; of a fetch the shares stay worth seeing
            transient=not tally.planned,
        )
        self._over = False

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._tally.take(event)
        if isinstance(event, Notice):
            self._console.print(Text(printable(event.text)))

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._over = True
        try:
            self._live.stop()
        except OSError:
            return  # the terminal hung up

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = not (console.encoding or "").lower().startswith("utf")
        with self._lock:
            yield from picture(
                self._tally,
                width=options.max_width,
                height=console.height,
                over=self._over,
                ascii_only=ascii_only,
            )


def picture(
    tally: Tally, *, width: int, height: int = 24, over: bool = False, ascii_only: bool = False
) -> Iterator[Text]:
    """The lines to show, none of them wider than `width` - 1.

    Args:
        over: the last picture, which stays: what will not change any more.
        ascii_only: the terminal shows no line drawing.
    """
    room = height - 1 - _OTHER_LINES
    sources_max = min(_SOURCES_MAX, max(1, room // 2))
    rows = _fitting(list(tally.rows.values()), max(1, room - sources_max))
    if rows:
        drawing = _Drawing(width - 1, rows, _BARS[ascii_only], fetching=tally.planned)
        yield drawing.heading()
        yield from map(drawing.row, rows)
        hidden = len(tally.rows) - len(rows)
        if hidden:
            yield _clipped(Text(f"+ {text.count(hidden, 'more component')}", style="dim"), width - 1)
        if tally.planned and len(tally.rows) > 1:
            yield drawing.row(_sum(tally), tally.rate_bps, tally.eta_s)
    if not over:
        yield Text()
        yield from _explanation(tally, width - 1, sources_max)


def _fitting(rows: list[Row], most: int) -> list[Row]:
    """At most so many: first those under way, then those that wait, then the finished; in their own order."""
    if len(rows) <= most:
        return rows
    ranked = sorted(rows, key=lambda row: (row.finished, row.done_bytes == 0))[:most]
    return [row for row in rows if row in ranked]


def _sum(tally: Tally) -> Row:
    row = Row("in all", tally.total_bytes)
    row.by_how = {how: tally.total(how) for how in How}
    return row


_BARS = {False: ("━", "─"), True: ("#", "-")}


class _Drawing:
    """Rows with their columns under each other."""

    def __init__(self, width: int, rows: list[Row], bar: tuple[str, str], *, fetching: bool) -> None:
        self._columns = list((_FETCHING if fetching else _READING).items())
        longest = max(len("in all"), *(len(_name(row)) for row in rows))
        self._name_width = min(longest, _NAME_MAX)
        room = width - self._needed(0)
        # too narrow for all: the bar goes first, then what is the least missed
        self._bar_width = min(room - 2, _BAR_MAX) if room - 2 >= _BAR_MIN else 0
        for heading in _LEAST_MISSED:
            if self._needed(self._bar_width) > width:
                self._columns = [each for each in self._columns if each[0] != heading]
        self._width = width
        self._bar = bar

    def _needed(self, bar_width: int) -> int:
        bar = bar_width + 2 if bar_width else 0
        return self._name_width + bar + sum(width + 2 for _, width in self._columns)

    def _line(self, name: Text, bar: Text, cells: Mapping[str, str], style: str = "") -> Text:
        line = Text().append_text(name)
        if self._bar_width:
            line.append("  ").append_text(bar)
        for heading, width in self._columns:
            line.append(f"  {cells[heading]:>{width}}", style=style)
        return _clipped(line, self._width)

    def heading(self) -> Text:
        blank = Text(" " * self._name_width)
        headings = {heading: heading for heading, _ in self._columns}
        return self._line(blank, Text(" " * self._bar_width), headings, style="dim")

    def row(self, row: Row, rate_bps: float | None = None, eta_s: float | None = None) -> Text:
        """One bar; a rate and a time that are not its own may be given."""
        if rate_bps is None:
            rate_bps, eta_s = row.rate_bps, row.eta_s
        name = Text(text.clip(_name(row), self._name_width).ljust(self._name_width))
        cells = {
            "": text.percent(row.done_bytes, row.total_bytes),
            "reused": text.size(row.by_how[How.REUSED]),
            "fetched": text.size(row.by_how[How.FETCHED]),
            "read": text.size(row.done_bytes),
            "left": text.size(row.left_bytes),
            "rate": text.rate(rate_bps) if rate_bps and not row.finished else "",
            "eta": "done" if row.finished else text.clock(eta_s),
        }
        return self._line(name, self._draw_bar(row), cells)

    def _draw_bar(self, row: Row) -> Text:
        share = min(1.0, max(0.0, row.done_bytes / row.total_bytes)) if row.total_bytes else 1.0
        filled = int(share * self._bar_width)
        bar = Text(self._bar[0] * filled, style="green" if row.finished else "cyan")
        return bar.append(self._bar[1] * (self._bar_width - filled), style="bright_black")


def _name(row: Row) -> str:
    return row.name or "all files"


def _explanation(tally: Tally, width: int, sources_max: int) -> Iterator[Text]:
    """What limits, or why nothing comes; then the sources."""
    silent_s = tally.silent_s
    line = Text()
    if silent_s > SILENT_S:
        line.append(f"nothing for {int(silent_s)} s: {tally.waiting_for}", style="yellow")
    elif tally.limited_by:
        line.append("limited by: ", style="dim")
        line.append(f"{tally.limited_by} {text.rate(tally.rate_bps)}", style="bold")
    else:
        line.append("limited by: ", style="dim").append("measuring")
    yield _clipped(line, width)
    sources = sorted(tally.sources, key=_worth_showing)
    labels = min(_LABEL_MAX, max((len(_label(each)) for each in sources), default=0))
    for source in sources[:sources_max]:
        yield _source_line(source, labels, width)
    if len(sources) > sources_max:
        yield _clipped(Text(f"  + {len(sources) - sources_max} more", style="dim"), width)


def _worth_showing(source: SourceStatus) -> tuple[bool, float]:
    return not source.state and not source.in_flight, -source.rate_bps


def _label(source: SourceStatus) -> str:
    return f"peer {source.label}" if source.peer else source.label


def _source_line(source: SourceStatus, label_width: int, width: int) -> Text:
    label = text.clip(_label(source), label_width).ljust(label_width)
    line = Text(f"  {label}")
    if source.state:
        line.append(f"  {text.clip(source.state, max(0, width - label_width - 4))}", style="yellow")
    else:
        flow = text.rate(source.rate_bps) if source.rate_bps > 0 else ""
        busy = text.count(source.in_flight, "request") if source.in_flight else "idle"
        line.append(f"  {flow:>10}  {busy}", style="dim")
    return _clipped(line, width)


def _clipped(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line
