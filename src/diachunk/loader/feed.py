"""Which chunk a lane takes next: in the order in which tensors are wanted, as soon as it is there."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol

_POLL_S = 0.02
_AGAIN_S = 0.1
"""A chunk that was only half written, or is still to be mended, is tried again after this."""
_POLL_SHARE = 10
"""Looking costs at most a tenth of the time, however many chunks there are."""


class Arrivals(Protocol):
    """Says which chunks of files that are still being fetched may be there."""

    def look(self) -> None:
        """Looks again."""
        ...

    def may_have(self, file: int, chunk: int) -> bool: ...

    def hasten(self, chunks: Iterable[tuple[int, int]]) -> None:
        """(file, chunk): these are wanted before others, in this order."""
        ...

    def tick(self) -> None:
        """Passes on what the fetch tells.

        Raises:
            DiachunkError: what ended it.
        """
        ...

    @property
    def over(self) -> bool:
        """Whether nothing will come any more: all is there, or the fetch failed."""
        ...


class Feed:
    """The jobs of one load: chunk `chunk` of file `file`, each handed out once. Called from several lanes.

    `ranks[n]` says for how early a tensor job n is wanted; jobs come sorted by it.
    """

    def __init__(
        self,
        files: Sequence[int],
        chunks: Sequence[int],
        ranks: Sequence[int],
        arrivals: Arrivals | None = None,
    ) -> None:
        self._files = array("I", files)
        self._chunks = array("I", chunks)
        self._ranks = array("I", ranks)
        self._arrivals = arrivals
        self._pending = list(range(len(files) - 1, -1, -1))
        self._ready: list[int] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._out = 0
        self._held_from: int | None = None
        self._look_at = 0.0
        self._not_before: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._files)

    def take(self) -> tuple[int, int, int] | None:
        """(job, file, chunk), once there is one; None when there are no more."""
        with self._changed:
            while not self._stopped:
                job = self._next()
                if job is not None:
                    self._out += 1
                    return job, self._files[job], self._chunks[job]
                if not self._pending and not self._ready and (not self._out or self._arrivals is None):
                    self._changed.notify_all()
                    return None
                self._changed.wait(_POLL_S if self._arrivals is not None else 0.1)
            return None

    def _next(self) -> int | None:
        if self._arrivals is None:
            return None if self._is_held(self._pending) else self._pending.pop()
        if self._is_held(self._ready):
            self._look(self._arrivals)
        return None if self._is_held(self._ready) else self._ready.pop()

    def _is_held(self, queue: list[int]) -> bool:
        """Whether a queue has nothing that may be handed out now."""
        return not queue or (self._held_from is not None and self._ranks[queue[-1]] >= self._held_from)

    def _look(self, arrivals: Arrivals) -> None:
        """Moves what is there now from pending to ready."""
        now = time.monotonic()
        if now < self._look_at or not self._pending:
            return
        arrivals.look()
        found = {
            job
            for job in self._pending
            if self._not_before.get(job, now) <= now
            and arrivals.may_have(self._files[job], self._chunks[job])
        }
        if found:
            self._ready = sorted({*self._ready, *found}, reverse=True)
            self._pending = [job for job in self._pending if job not in found]
        self._look_at = time.monotonic() + max(_POLL_S, _POLL_SHARE * (time.monotonic() - now))

    def done(self) -> None:
        """A job that was handed out is settled."""
        with self._changed:
            self._out -= 1
            if not self._out:
                self._changed.notify_all()

    def give_back(self, job: int) -> None:
        """A job whose chunk was not there after all: it is handed out again later."""
        with self._changed:
            self._out -= 1
            self._not_before[job] = time.monotonic() + _AGAIN_S
            self._pending.append(job)
            self._pending.sort(reverse=True)

    def hold(self, rank: int | None) -> None:
        """Hands out nothing that is wanted only for tensors of this rank or later; None: everything again."""
        with self._changed:
            self._held_from = rank
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
