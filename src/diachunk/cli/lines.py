"""Progress where nothing can be redrawn: calm plain lines for logs, or JSON objects for programs."""

from __future__ import annotations

from collections.abc import Callable

from diachunk.cli import text
from diachunk.cli.talk import Talk
from diachunk.cli.tally import Tally
from diachunk.transfer.progress import Event, FileDone, How, Notice, SourceTrouble, Status

PLAIN_S = 10.0
JSON_S = 0.25


class PlainLines:
    """One line of progress every ten seconds, and one when a source gets into trouble."""

    def __init__(self, tally: Tally, say: Callable[[str], None], *, verbose: bool = False) -> None:
        self._tally = tally
        self._say = say
        self._verbose = verbose
        self._said_at = tally.started_at
        self._trouble_at: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        now = self._tally.clock()
        match event:
            case Notice():
                self._say(event.text)
            case SourceTrouble():
                self._say_trouble(event, now)
            case FileDone() if self._verbose:
                self._say(f"complete: {'/'.join(filter(None, (event.component, event.path)))}")
            case _:
                pass
        if now - self._said_at >= PLAIN_S:
            self._said_at = now
            self._say(self.line())

    def _say_trouble(self, event: SourceTrouble, now: float) -> None:
        if "that only the manifest names" in event.detail:
            return  # the end says it, with what to do
        # a source that flaps between two faults must not fill the log
        if now - self._trouble_at.get(event.label, -PLAIN_S) >= PLAIN_S:
            self._trouble_at[event.label] = now
            self._say(f"{event.label}: {event.detail}")

    def line(self) -> str:
        """Where it stands."""
        tally = self._tally
        done = f"{text.size(tally.done_bytes)} of {text.size(tally.total_bytes)}"
        parts = [f"{done} ({text.percent(tally.done_bytes, tally.total_bytes)})"]
        if tally.silent_s >= PLAIN_S / 2:
            return f"{parts[0]}; nothing for {text.duration(tally.silent_s)}: {tally.waiting_for}"
        if tally.rate_bps:
            parts.append(text.rate(tally.rate_bps))
        if tally.eta_s is not None:
            parts.append(f"{text.about(tally.eta_s)} left")
        line = ", ".join(parts)
        return f"{line}; limited by: {tally.limited_by}" if tally.limited_by else line

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exc: object) -> None:
        return


class JsonLines:
    """The same as objects: `progress` and `status` at most four times a second each, the rest at once."""

    def __init__(self, tally: Tally, talk: Talk, *, files: bool = True) -> None:
        self._tally = tally
        self._talk = talk
        self._files = files
        self._progress_at = tally.started_at - JSON_S
        self._status_at = tally.started_at - JSON_S
        self._told_bytes = -1

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        now = self._tally.clock()
        match event:
            case Notice():
                self._talk.emit("notice", text=event.text)
            case SourceTrouble():
                self._talk.emit("source", label=event.label, detail=event.detail)
            case FileDone() if self._files:
                self._talk.emit("file", component=event.component, path=event.path, size_bytes=event.size)
            case Status() if now - self._status_at >= JSON_S:
                self._status_at = now
                self._tell_status(event)
            case _:
                pass
        if now - self._progress_at >= JSON_S and self._tally.done_bytes != self._told_bytes:
            self._progress_at = now
            self._tell_progress()

    def _tell_progress(self) -> None:
        tally = self._tally
        self._told_bytes = tally.done_bytes
        self._talk.emit(
            "progress",
            done_bytes=tally.done_bytes,
            total_bytes=tally.total_bytes,
            parts=[
                {
                    "name": row.name,
                    "total_bytes": row.total_bytes,
                    "left_bytes": row.left_bytes,
                    **{f"{how.value}_bytes": row.by_how[how] for how in How if row.by_how[how]},
                }
                for row in tally.rows.values()
            ],
        )

    def _tell_status(self, status: Status) -> None:
        self._talk.emit(
            "status",
            left_bytes=status.left_bytes,
            rate_bps=round(status.rate_bps),
            eta_s=None if status.eta_s is None else round(status.eta_s, 1),
            limited_by=self._tally.limited_by,
            sources=[
                {
                    "label": each.label,
                    "peer": each.peer,
                    "rate_bps": round(each.rate_bps),
                    "in_flight": each.in_flight,
                    "verified_bytes": each.verified_bytes,
                    "state": each.state,
                }
                for each in status.sources
            ],
        )

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tally.done_bytes != self._told_bytes and self._tally.rows:
            self._tell_progress()
