"""Other machines on the board: whom to ask for what, and what this node may still ask of an origin. Pure.

While other members fetch the same, an origin is asked only for what this node owns and no peer holds, one request
at a time, before any peer work; and for what others own once they get nowhere (schedule/feeders.py). Alone beside
peers, origins and peers are sources like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.schedule.board import FREE, Board, Candidate
from diachunk.schedule.claims import Claim
from diachunk.schedule.feeders import SingleFlight
from diachunk.schedule.health import Concurrency, Health, Rng, Tier
from diachunk.schedule.holdings import Held
from diachunk.schedule.members import Member
from diachunk.schedule.turns import Turns

_MISSED_MAX = 3
_SCANNED_MAX = 512
"""Items looked at in one search for something to take over: the lock is held meanwhile."""
_AGAIN_S = 0.2
_WORTH_BEGINNING = 0.25
_FEW = 4
"""With fewer chunks than so many a machine, what each has begun is much of the whole."""
_WORTH_KEEPING = 0.5
"""An origin's answer that is this far stays, although a better node turns out to take the same."""


class Swarm:
    """What one schedule knows of the other machines."""

    def __init__(self, board: Board, key: bytes, limits: Limits, rng: Rng) -> None:
        self.flight = SingleFlight(key, board.work, limits)
        self._turns = Turns(rng)
        self._holdings = board.watch_holdings(rng)
        self._board = board
        self._limits = limits
        self._own_from = 0
        self._own_again_at = 0.0
        self._help_at = 0.0
        self._help_below = len(board.work)

    # --- peers ---------------------------------------------------------------------------------------------

    def add(self, label: str, has: Bitmap) -> int:
        health = Health(
            label,
            Tier.NETWORK,
            self._limits,
            Concurrency(self._limits.per_peer, self._limits.per_peer),
            peer=True,
        )
        held = self._holdings.join()
        number = self._board.add(Candidate(health, None, held=held))
        self._holdings.replace(held, has)
        self._turns.place(number, health)
        return number

    def gains(self, number: int, items: Iterable[int], now: float) -> None:
        candidate, held = self._peer(number)
        if candidate.health.away or candidate.health.out:
            return
        for item in items:
            known = 0 <= item < held.items and item not in candidate.barred
            if known and self._holdings.gain(held, item) and not self._board.is_done(item):
                self.flight.delivered(candidate.health.label, now)

    def holds(self, number: int, has: Bitmap | None) -> None:
        """Exactly these; None: it is gone."""
        candidate, held = self._peer(number)
        candidate.health.away = has is None
        self._holdings.replace(held, None if candidate.health.out else has, candidate.barred)
        self.reopened()

    def missed(self, candidate: Candidate, items: Iterable[int]) -> None:
        """It had not got what it said it holds."""
        for item in items:
            candidate.missed[item] = candidate.missed.get(item, 0) + 1
            if candidate.missed[item] >= _MISSED_MAX:
                candidate.barred.add(item)
            if candidate.held is not None:
                self._holdings.lose(candidate.held, item)
        self.reopened()

    def settle(self, candidate: Candidate) -> None:
        """After a fault: what was barred leaves its bitmap, and all of it when the peer is out."""
        if candidate.held is None:
            return
        if candidate.health.out:
            self._holdings.replace(candidate.held, None)
        for item in candidate.barred:
            self._holdings.lose(candidate.held, item)
        self.reopened()

    def _peer(self, number: int) -> tuple[Candidate, Held]:
        candidate = self._board.sources[number]
        if candidate.held is None:
            raise ValueError(f"source {number} is no peer")
        return candidate, candidate.held

    def reorder(self, number: int) -> None:
        """A request to this peer began or ended."""
        self._turns.place(number, self._board.sources[number].health)

    def ready(self, now: float) -> Iterator[int]:
        """Peers that may be asked now, the one to ask first at first. Over once one of them is asked."""
        sources, most = self._board.sources, self._limits.per_peer
        for number in self._turns:
            candidate = sources[number]
            health, held = candidate.health, candidate.held
            if held is None or not held.some or now < health.resume_at or health.out or health.away:
                continue
            if health.in_flight < (1 if health.faults_in_a_row else most):
                yield number

    # --- single flight -------------------------------------------------------------------------------------

    def members(
        self, me: str, others: Sequence[Member], feeds: bool, claims: Iterable[Claim], now: float
    ) -> None:
        """Who takes part now. Requests that have hardly begun go to those who own what they are for."""
        if not self.flight.members(me, others, feeds, now):
            return
        self.reopened()
        begun = [each for each in claims if self._is_origin_claim(each)] if others else []
        begun.sort(key=lambda each: each.received_bytes)
        if begun and self._is_much(len(others)):
            begun.pop()  # each brings in another one, and all have something to give
        for claim in begun:
            if claim.received_bytes < _WORTH_BEGINNING * claim.size:
                claim.cancelled = not any(self._is_mine(item) for item in claim.run.items)

    def _is_much(self, others: int) -> bool:
        """Whether what so many machines have begun is much of the whole, and yet not many times all of it."""
        few = self._limits.feeders
        return others < few or (others < 2 * few and len(self._board.work) < _FEW * others)

    def takes(self, name: str, under_way: Mapping[int, int], claims: Iterable[Claim], now: float) -> None:
        """What a member takes. Our own request for the same is dropped if that member comes before us."""
        self.flight.takes(name, under_way, now)
        for claim in claims:
            if self._is_origin_claim(claim) and claim.received_bytes < _WORTH_KEEPING * claim.size:
                doubled = [item for item in claim.run.items if item in under_way]
                if len(doubled) == len(claim.run.items) and all(
                    self.flight.outranks(name, item) and self.flight.is_under_way(item, now)
                    for item in doubled
                ):
                    claim.cancelled = True

    def _is_origin_claim(self, claim: Claim) -> bool:
        health = self._board.sources[claim.source].health
        return health.tier is Tier.NETWORK and not health.peer and not claim.stream and not claim.cancelled

    def origin_item(self, candidate: Candidate, now: float, stuck: bool) -> int | None:
        """What this node should take from an origin now, while others fetch the same; None: nothing.

        Args:
            stuck: nothing was verified here for a while: then what peers claim to hold counts for nothing.
        """
        if not self.flight.may_begin(now):
            return None
        item = self._own_item(candidate, now) if self.flight.has_part else None
        if item is None and now >= self._help_at:
            self._help_at = now + _AGAIN_S
            item = self._others_item(candidate, now, stuck)
            if item is None and stuck:
                item = self._held_item(candidate, now)
        return item

    def belongs_with(self, first: int) -> SameTurn:
        """What may be asked for in one request with `first`."""
        return SameTurn(self, self.flight.window(first))

    def _takeable(self, candidate: Candidate, item: int) -> bool:
        blob = self._board.work.blob_of(item)
        return (
            blob not in candidate.health.missing_blobs
            and blob not in candidate.streaming
            and candidate.may_hold(item)
        )

    def _own_item(self, candidate: Candidate, now: float) -> int | None:
        """The first that this node owns and nobody brings: wanted ones before the others."""
        flight, holdings = self.flight, self._holdings
        for item in self._board.urgent_now():
            if (
                self._board.state(item) == FREE
                and not holdings.is_held(item)
                and self._is_mine(item)
                and self._takeable(candidate, item)
                and not flight.is_under_way(item, now)
            ):
                return item
        if now < self._own_again_at:
            return None
        passed_over = False
        item = holdings.next_unheld(self._own_from)
        for _ in range(_SCANNED_MAX):
            if item < 0:
                break
            if self._is_mine(item):
                if self._takeable(candidate, item) and not flight.is_under_way(item, now):
                    return item
                passed_over = True
            if not passed_over:
                self._own_from = item + 1
            item = holdings.next_unheld(item + 1)
        if passed_over or item < 0:
            self._own_again_at = now + _AGAIN_S
        return None

    def _is_mine(self, item: int) -> bool:
        ranked = self.flight.ranked(item)
        return not ranked or ranked[0] == self.flight.me

    def _others_item(self, candidate: Candidate, now: float, stuck: bool) -> int | None:
        """Something that others own, from the far end of their order: what they get nowhere with, or else what
        this node comes next for, so that the slowest does not hold up all when it has the most to do.
        """
        flight, holdings = self.flight, self._holdings
        item = holdings.last_unheld(self._help_below)
        for _ in range(_SCANNED_MAX):
            if item < 0:
                break
            self._help_below = item
            turn = flight.comes_next(item) or (
                (stuck or flight.me in flight.ranked(item)) and flight.may_take_over(item, now)
            )
            if turn and self._takeable(candidate, item) and not flight.is_under_way(item, now):
                return item
            item = holdings.last_unheld(item)
        else:
            return None
        self._help_below = len(self._board.work)
        return None

    def _held_item(self, candidate: Candidate, now: float) -> int | None:
        """Something that peers say they hold, and do not bring."""
        for item in (self._board.next_item(candidate),):
            if item is not None and not self.flight.is_under_way(item, now):
                return item if self.flight.may_take_over(item, now) else None
        return None

    def reopened(self) -> None:
        """Something came back, or changed hands: what was passed over may be ours."""
        self._own_from = 0
        self._own_again_at = 0.0

    def may_double(self, candidate: Candidate, items: Iterable[int]) -> bool:
        """Whether a hedge may go to this source: an origin gets one only from the owner or the next in rank."""
        if candidate.health.peer or self.flight.alone:
            return True
        return all(self.flight.me in self.flight.ranked(item)[:2] for item in items)


class SameTurn:
    """Whether an item may be taken along in a request: of the same piece of the file, and held by no peer."""

    __slots__ = ("_swarm", "_window")

    def __init__(self, swarm: Swarm, window: int) -> None:
        self._swarm = swarm
        self._window = window

    def __call__(self, item: int) -> bool:
        swarm = self._swarm
        return swarm.flight.window(item) == self._window and not swarm._holdings.is_held(item)
