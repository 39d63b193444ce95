"""Which items are taken, by whom they may be taken, and where to look for the next one.

An item is in one of four states, a byte each, so that looking for work is a memchr:

    FREE    nobody works on it; network sources may take it
    LOCAL   a local source claims to hold it and has not been tried yet
    FLIGHT  at least one claim covers it
    DONE    verified
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES
from diachunk.schedule.health import Health, Rng, Tier
from diachunk.schedule.holdings import Held, Holdings
from diachunk.schedule.work import WorkList

FREE, LOCAL, FLIGHT, DONE = range(4)
_RUN_ITEMS_MAX = 256
"""A hostile manifest can cut 4 MiB into a million chunks; a run is looked through under the lock."""
_URGENT_SEEN = 64
"""How far into a wanted order a source is offered something: it may be long, and hold nothing for this one."""


@dataclass(slots=True)
class Candidate:
    """A source on the board.

    Attributes:
        has: items it is known to hold; None: it may hold any.
        held: the same of a peer, whose news come while it is asked.
        cursor: no item before this one can be taken by this source now.
        barred: items that it is not asked for (again).
        streams, streaming: how often each blob was read as a stream; blobs being read so now.
        missed: how often a peer had not got what it said it holds.
    """

    health: Health
    has: Bitmap | None
    cursor: int = 0
    barred: set[int] = field(default_factory=set)
    streams: dict[int, int] = field(default_factory=dict)
    streaming: set[int] = field(default_factory=set)
    held: Held | None = None
    missed: dict[int, int] = field(default_factory=dict)

    @property
    def wants(self) -> int:
        """The state in which it may take an item."""
        return LOCAL if self.health.tier is Tier.LOCAL else FREE

    def may_hold(self, item: int) -> bool:
        if self.held is not None:
            return item in self.held
        return item not in self.barred and (self.has is None or item in self.has)


class Board:
    """The state of every item, and the sources."""

    def __init__(self, work: WorkList) -> None:
        self.work = work
        self.sources: list[Candidate] = []
        self.plain: list[tuple[int, Candidate]] = []
        """Those that are no peers, with their numbers: few, where peers may be many."""
        self.done_items = 0
        self.done_bytes = 0
        self.returned: set[int] = set()
        self.holdings: Holdings | None = None
        self._state = bytearray(len(work))
        self._urgent: list[int] = []
        self._urgent_later: deque[int] = deque()
        self._hastened: set[int] = set()

    def add(self, candidate: Candidate) -> int:
        """Puts a source on the board; items that a local one holds wait for it. Returns its number."""
        if candidate.held is None:
            self.plain.append((len(self.sources), candidate))
        self.sources.append(candidate)
        if candidate.health.tier is Tier.LOCAL and candidate.has is not None:
            for item in candidate.has:
                if self._state[item] == FREE:
                    self._state[item] = LOCAL
                    if self.holdings is not None:
                        self.holdings.taken(item)
        return len(self.sources) - 1

    def watch_holdings(self, rng: Rng) -> Holdings:
        """From now on what is free is known in bits as well, for the sake of peers."""
        if self.holdings is None:
            self.holdings = Holdings(self._state, rng)
        return self.holdings

    def state(self, item: int) -> int:
        return self._state[item]

    def is_in_flight(self, item: int) -> bool:
        return self._state[item] == FLIGHT

    def is_done(self, item: int) -> bool:
        return self._state[item] == DONE

    @property
    def complete(self) -> bool:
        return self.done_items == len(self._state)

    @property
    def all_assigned(self) -> bool:
        """Whether everything is DONE or under way."""
        return self._state.find(FREE) < 0 and self._state.find(LOCAL) < 0

    def missing(self) -> Iterator[int]:
        """Items that are not DONE."""
        return (item for item, state in enumerate(self._state) if state != DONE)

    def next_item(self, candidate: Candidate) -> int | None:
        """The first item this source could take now, or None. Moves its cursor past what it cannot."""
        wanted = candidate.wants
        for item in self.urgent_now():
            if self._state[item] == wanted and self._may_take(candidate, item):
                return item
        if candidate.held is not None:
            return self.holdings.rarest(candidate.held) if self.holdings else None
        item = self._state.find(wanted, candidate.cursor)
        while item >= 0:
            blob = self.work.blob_of(item)
            if blob in candidate.health.missing_blobs or blob in candidate.streaming:
                item = self._state.find(wanted, self.work.items_of(blob).stop)
            elif not candidate.may_hold(item):
                item = self._state.find(wanted, item + 1)
            else:
                if not candidate.streaming:
                    candidate.cursor = item
                return item
        if not candidate.streaming:
            candidate.cursor = len(self._state)
        return None

    def item_from(self, candidate: Candidate, start: int) -> int | None:
        """The first item from `start` on that this source could take now, unless others are wanted before all."""
        if self.urgent_now() or candidate.streaming or candidate.health.sequential:
            return None
        item = self._state.find(candidate.wants, start)
        return item if item >= 0 and self._may_take(candidate, item) else None

    def has_work(self, candidate: Candidate) -> bool:
        """Whether there is an item this source could take now."""
        if candidate.held is not None:
            return self.holdings is not None and self.holdings.has_work(candidate.held)
        return self.next_item(candidate) is not None

    def _may_take(self, candidate: Candidate, item: int) -> bool:
        blob = self.work.blob_of(item)
        lost = blob in candidate.health.missing_blobs or blob in candidate.streaming
        return not lost and not candidate.health.sequential and candidate.may_hold(item)

    def hasten(self, items: Iterable[int]) -> None:
        """Somebody waits for these: they are taken before all others. What is done is forgotten."""
        for item in items:
            if self._state[item] != DONE and item not in self._hastened:
                self._hastened.add(item)
                self._urgent_later.append(item)

    @property
    def urgent(self) -> list[int]:
        """The hastened items that are not known to be DONE, in their order."""
        return [*self.urgent_now(), *self._urgent_later]

    def urgent_now(self) -> list[int]:
        """The first of the hastened items that are not DONE."""
        if not self._hastened:
            return []
        kept = [item for item in self._urgent if self._state[item] != DONE]
        if len(kept) < len(self._urgent):
            self._hastened.difference_update(self._urgent)
            self._hastened.update(kept)
        while self._urgent_later and len(kept) < _URGENT_SEEN:
            item = self._urgent_later.popleft()
            if self._state[item] != DONE:
                kept.append(item)
            else:
                self._hastened.discard(item)
        self._urgent = kept
        return kept

    def has_safe_home(self, item: int, now: float) -> bool:
        """Whether a network source that is proven and alive can bring this item."""
        return any(self.is_safe_home(each, item, now) for each in self.sources)

    def is_safe_home(self, each: Candidate, item: int, now: float) -> bool:
        blob = self.work.blob_of(item)
        return (
            each.health.tier is Tier.NETWORK
            and each.health.request_bps > 0
            and not each.health.faults_in_a_row
            and not each.health.out
            and now >= each.health.resume_at
            and blob not in each.health.missing_blobs
            and blob not in each.streaming
            and each.may_hold(item)
        )

    def take_run(
        self,
        candidate: Candidate,
        first: int,
        most_bytes: int = CHUNK_BYTES,
        also: Callable[[int], bool] = lambda item: True,
    ) -> tuple[int, int]:
        """Takes `first` and what follows it in the file, as far as one request goes: (count, bytes). Behind what
        somebody waits for nothing else is taken: a header of 1 KB would come with the 4 MiB that follow it.

        Args:
            also: asked of each item that follows.
        """
        work = self.work
        urgent = first in self._hastened
        last, size = first, work.size(first)
        while (
            work.adjacent(last)
            and self._state[last + 1] == candidate.wants
            and candidate.may_hold(last + 1)
            and size + work.size(last + 1) <= most_bytes
            and last - first + 1 < _RUN_ITEMS_MAX
            and (not urgent or last + 1 in self._hastened)
            and also(last + 1)
        ):
            last += 1
            size += work.size(last)
        count = last - first + 1
        self._state[first : last + 1] = bytes([FLIGHT]) * count
        if self.holdings is not None:
            self.holdings.taken(first, count)
        return count, size

    def take(self, item: int) -> bool:
        """Takes one item if nobody has it."""
        if self._state[item] in (FREE, LOCAL):
            self._state[item] = FLIGHT
            if self.holdings is not None:
                self.holdings.taken(item)
            return True
        return False

    def complete_item(self, item: int) -> bool:
        """Marks an item DONE; False if it was."""
        if self._state[item] == DONE:
            return False
        self._state[item] = DONE
        if self.holdings is not None:
            self.holdings.taken(item)
        self.done_items += 1
        self.done_bytes += self.work.size(item)
        return True

    def give_back(self, item: int) -> None:
        """An item nobody works on any more: local sources not yet tried come first again."""
        self.returned.add(item)
        claimed = any(
            each.health.tier is Tier.LOCAL and each.has is not None and each.may_hold(item)
            for each in self.sources
        )
        self._state[item] = LOCAL if claimed else FREE
        if self.holdings is not None and not claimed:
            self.holdings.freed(item)
        for each in self.sources:
            each.cursor = min(each.cursor, item)
