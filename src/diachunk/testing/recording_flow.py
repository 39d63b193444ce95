"""A `Flow` for suites of sources: it records what a source asks and says, and stops it on demand."""

from __future__ import annotations

from collections.abc import Callable

from diachunk.limits import KiB
from diachunk.schedule.health import Fault
from diachunk.schedule.work import Run
from diachunk.sources.base import Source, SourceFault

_SLICES = (64 * KiB, 100_000, 7, 256 * KiB)


class RecordingFlow:
    """A `Flow` that checks what a source asks and says, and stops it after so many bytes.

    Attributes:
        advanced_bytes: what the source said that it read.
        wake: what the source registered last to be woken with.
    """

    def __init__(self, slack_bytes: int = 0, *, stop_after: int | None = None, wakes: bool = False) -> None:
        self.advanced_bytes = 0
        self.advances_after_stop = 0
        self.stopped: SourceFault | None = None
        self.wake: Callable[[], None] | None = None
        self.on_advance: Callable[[], None] = lambda: None
        self._slack_bytes = slack_bytes
        self._stop_after = stop_after
        self._wakes = wakes
        self._slice = 0
        self._asked = 0

    def slice_bytes(self) -> int:
        if self.stopped:
            raise self.stopped
        self._asked += 1
        self._slice = _SLICES[self._asked % len(_SLICES)]
        return self._slice

    def advance(self, size_bytes: int) -> None:
        assert self._slice, "a read without having asked slice_bytes before"
        allowed = max(self._slice, self._slack_bytes)
        assert 0 < size_bytes <= allowed, f"a slice of {size_bytes} bytes, {self._slice} allowed"
        self._slice = 0
        self.advances_after_stop += self.stopped is not None
        self.advanced_bytes += size_bytes
        self.on_advance()
        if self._stop_after is not None and self.advanced_bytes >= self._stop_after:
            if self._wakes and self.wake:
                self.wake()
            self.stopped = self.stopped or SourceFault(Fault.CANCELLED, "")
            raise self.stopped

    def on_cancel(self, wake: Callable[[], None]) -> None:
        self.wake = wake


def fault_of(source: Source, run: Run, slack_bytes: int = 0) -> SourceFault | None:
    """The fault of filling a run, or None if it was filled."""
    try:
        source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow(slack_bytes))
    except SourceFault as fault:
        return fault
    return None
