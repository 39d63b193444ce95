"""What this node fetches now: what makes it a member of a swarm. P5 and P9 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from diachunk.digest import Digest
from diachunk.node.model import Want
from diachunk.node.stock.bell import Bell

_BORROWED_MAX = 64


class Wants:
    """Used on the loop's thread alone.

    Attributes:
        changed: rung when a want comes or goes, or gets on with what it takes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = Bell()
        self._clock = clock
        self._own: dict[Digest, Want] = {}
        self._borrowed: dict[Digest, tuple[Want, float]] = {}

    def now(self) -> float:
        """What the clock says."""
        return self._clock()

    def put(self, want: Want) -> None:
        """This process fetches it now; in place of what was said of that manifest before."""
        if self._own.get(want.manifest_id) != want:
            self._own[want.manifest_id] = want
            self.changed.ring()

    def drop(self, manifest_id: Digest) -> None:
        """This process does not fetch it any more."""
        if self._own.pop(manifest_id, None) is not None:
            self.changed.ring()

    def taking(self, manifest_id: Digest, pairs: Iterable[tuple[int, int]]) -> None:
        """What it takes from origins at this moment: distinct digests by number, and bytes so far."""
        want = self._own.get(manifest_id)
        if want is not None:
            self.put(replace(want, taking=tuple(pairs)))

    def borrow(self, want: Want, until_s: float) -> None:
        """A fetch beside this process, on the same store, says what it wants; good until then by the clock."""
        self._expire()
        if want.manifest_id not in self._borrowed and len(self._borrowed) >= _BORROWED_MAX:
            return
        known = self._borrowed.get(want.manifest_id)
        self._borrowed[want.manifest_id] = (want, until_s)
        if known is None or known[0] != want:
            self.changed.ring()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # without a loop nobody waits for it to end
        loop.call_later(max(0.0, until_s - self._clock()) + 0.01, self._expire)

    def of(self, manifest_id: Digest) -> Want | None:
        """What is wanted of that manifest, by this process or by one beside it."""
        own = self._own.get(manifest_id)
        if own is not None:
            return own
        want, until_s = self._borrowed.get(manifest_id, (None, 0.0))
        return want if until_s > self._clock() else None

    def all(self) -> list[Want]:
        """Every want, this process's own first."""
        now = self._clock()
        others = [
            want for key, (want, until_s) in self._borrowed.items() if until_s > now and key not in self._own
        ]
        return [*self._own.values(), *others]

    def _expire(self) -> None:
        now = self._clock()
        over = [key for key, (_, until_s) in self._borrowed.items() if until_s <= now]
        for key in over:
            del self._borrowed[key]
        if over:
            self.changed.ring()
