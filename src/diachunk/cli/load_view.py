"""Progress of a load: a live picture, plain lines, or JSON. How far each stage is, what limits, how much memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from diachunk.cli import text
from diachunk.cli.lines import JSON_S, PLAIN_S
from diachunk.cli.talk import Talk
from diachunk.cli.tally import unanswered
from diachunk.loader.events import LoadEvent, LoadListener, LoadPlan, LoadProgress, LoadStatus
from diachunk.transfer.progress import Notice, SourceTrouble, Status

if TYPE_CHECKING:
    from rich.text import Text

TellPlan: TypeAlias = Callable[[Talk, LoadPlan], None]
SILENT_S = 3.0
_BAR_MAX = 40
_REFRESH_PER_S = 4


class LoadTally:
    """What has come so far, added up from events."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.plan: LoadPlan | None = None
        self.status: LoadStatus | None = None
        self.fetching: Status | None = None
        self.landed = self.read = self.verified = self.fetched = 0
        self.gained_at = self.started_at = clock()

    def take(self, event: LoadEvent) -> None:
        match event:
            case LoadPlan():
                self.plan = event
            case LoadProgress():
                self.landed += event.bytes
                self.read += event.read_bytes
                self.verified += event.verified_bytes
                self.fetched += event.fetched_bytes
                self.gained_at = self.clock()
            case LoadStatus():
                self.status = event
            case Status():
                self.fetching = event
            case _:
                pass

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """(stage, bytes done, bytes in all) of the stages that this load has."""
        if self.fetching is not None:
            yield "fetched", self.fetched, self.fetched + self.fetching.left_bytes
        if self.plan is not None:
            if self.plan.read_bytes:
                yield "read", self.read, self.plan.read_bytes
            if self.plan.hashed_bytes:
                yield "verified", self.verified, self.plan.hashed_bytes
            yield f"on {self.plan.device}", self.landed, self.plan.total_bytes

    def explanation(self) -> str:
        """How long the fetch will take and what limits, or why nothing comes; and the memory that is in use."""
        silent_s = self.clock() - self.gained_at
        parts = []
        if silent_s > SILENT_S:
            parts.append(f"nothing for {int(silent_s)} s: {self._waiting_for()}")
        elif self.fetching is not None and self.fetching.left_bytes:
            if self.fetching.eta_s is not None:
                parts.append(f"fetch: {text.about(self.fetching.eta_s)} left")
            parts.append(
                f"limited by: {self.fetching.limited_by or 'the fetch'} {text.rate(self.fetching.rate_bps)}"
            )
        elif self.status is not None and self.status.limited_by:
            parts.append(f"limited by: {self.status.limited_by} {text.rate(self.status.rate_bps)}")
        if self.status is not None:
            parts.append(f"memory: {text.size(self.status.host_bytes)}")
            if self.status.device_bytes and self.plan is not None:
                parts.append(f"{self.plan.device}: {text.size(self.status.device_bytes)}")
        return "; ".join(parts) or "starting"

    def _waiting_for(self) -> str:
        if self.fetching is not None and self.fetching.left_bytes:
            # The live picture has no line for each source: who is to blame is said here.
            troubled = (f"{each.label}: {each.state}" for each in self.fetching.sources if each.state)
            named = unanswered(self.fetching.sources) or next(troubled, "")
            if named:
                return named
        if self.plan is None:
            return "starting PyTorch" if self.fetching is None else "waiting for the header"
        return (
            f"waiting for {self.status.limited_by if self.status and self.status.limited_by else 'the disk'}"
        )

    def line(self) -> str:
        """All of it in one."""
        stages = (f"{name} {text.percent(done, whole)}" for name, done, whole in self.rows())
        return f"{', '.join(stages)}; {self.explanation()}"


def show_load(talk: Talk, tell_plan: TellPlan) -> AbstractContextManager[LoadListener]:
    """Returns what to enter around the load; entering it gives the listener."""
    if talk.animated:
        return _live(talk, tell_plan)
    return _lines(talk, tell_plan)


@contextmanager
def _lines(talk: Talk, tell_plan: TellPlan) -> Iterator[LoadListener]:
    tally = LoadTally()
    told_at = tally.started_at

    def listen(event: LoadEvent) -> None:
        nonlocal told_at
        tally.take(event)
        now = tally.clock()
        match event:
            case LoadPlan():
                tell_plan(talk, event)
            case Notice():
                talk.say(event.text)
                talk.emit("notice", text=event.text)
            case SourceTrouble():
                talk.say(f"{event.label}: {event.detail}")
                talk.emit("source", label=event.label, detail=event.detail)
            case _:
                pass
        if now - told_at >= (JSON_S if talk.as_json else PLAIN_S):
            told_at = now
            talk.say(tally.line())
            _emit(talk, tally)

    yield listen
    _emit(talk, tally)


def _emit(talk: Talk, tally: LoadTally) -> None:
    status = tally.status
    eta_s = tally.fetching.eta_s if tally.fetching is not None else None
    talk.emit(
        "progress",
        fetched_bytes=tally.fetched,
        read_bytes=tally.read,
        verified_bytes=tally.verified,
        done_bytes=tally.landed,
        total_bytes=tally.plan.total_bytes if tally.plan is not None else None,
        fetch_eta_s=None if eta_s is None else round(eta_s, 1),
        limited_by=status.limited_by if status is not None else "",
        host_bytes=status.host_bytes if status is not None else None,
        device_bytes=status.device_bytes if status is not None else None,
    )


@contextmanager
def _live(talk: Talk, tell_plan: TellPlan) -> Iterator[LoadListener]:
    from rich.console import Console, Group
    from rich.live import Live

    tally, lock = LoadTally(), threading.Lock()
    console = Console(stderr=True, highlight=False)

    class _Picture:
        def __rich__(self) -> Group:
            with lock:
                return Group(
                    *picture(tally, console.width, (console.encoding or "").lower().startswith("utf"))
                )

    def listen(event: LoadEvent) -> None:
        with lock:
            tally.take(event)
        if isinstance(event, LoadPlan):
            tell_plan(talk, event)
        elif isinstance(event, Notice):
            talk.say(event.text)

    live = Live(
        _Picture(), console=console, refresh_per_second=_REFRESH_PER_S, transient=True, redirect_stdout=False
    )
    with live:
        yield listen


def picture(tally: LoadTally, width: int, unicode: bool = True) -> Iterator[Text]:
    """A bar a stage and a line that explains, none wider than `width` - 1."""
    from rich.text import Text

    full, empty = ("━", "─") if unicode else ("#", "-")
    rows = list(tally.rows())
    names = max((len(name) for name, _, _ in rows), default=0)
    bar = max(0, min(_BAR_MAX, width - names - 24))
    for name, done, whole in rows:
        filled = int(bar * min(1.0, done / whole)) if whole else bar
        line = Text(f"{name:<{names}}  ")
        line.append(full * filled, style="green" if done >= whole else "cyan")
        line.append(empty * (bar - filled), style="bright_black")
        line.append(f"  {text.percent(done, whole):>4}  {text.size(done):>8}")
        line.truncate(width - 1, overflow="ellipsis")
        yield line
    last = Text(tally.explanation(), style="dim")
    last.truncate(width - 1, overflow="ellipsis")
    yield last
