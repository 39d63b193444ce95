"""Single flight without a tracker: which node takes what from the origins. Pure.

Of the members that want a component and have an origin, the few of lowest hash(key, address) are its feeders. A
feeder owns the pieces of a file that rendezvous hashing gives it: all nodes compute the same from the same members,
and what differs while views differ costs a duplicate, never a chunk. The rank of a feeder for a piece is its place
in that piece's order: rank 0 owns it, the next ones take over in turn when those before them get nowhere.

Nothing a member says is trusted further than this: it may keep the others waiting for a piece while its claims
advance, and not at all once it delivered nothing for `_DELIVERS_WITHIN` takeovers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.schedule.members import Member
from diachunk.schedule.work import WorkList

_PRIME = (1 << 61) - 1
_WINDOW_BITS = CHUNK_BYTES.bit_length() - 1
_STAGGER_S = 1.5
"""Between one rank's takeover and the next one's: time enough to hear that the first is at it."""
_STRANGERS_MAX = 8
"""Nodes beyond the feeders, ordered by their hash, that step in one after another; all others with the last."""
_BEGIN_S = 0.25
"""Between one feeder's first request and the next one's."""
_STEP_BYTES = 16 * 1024
_DELIVERS_WITHIN = 6
_REMEMBERED = 4096


@dataclass(slots=True)
class MemberState:
    """What one member was seen doing. Times are the schedule's clock.

    Attributes:
        moved_at: when its claims last advanced, or it was the first to hold something.
        delivered_at: when it was last the first to hold something, or began to be a feeder.
        begun: when an item first stood among its claims, and how far it was at its last step.
    """

    member: Member
    moved_at: float
    delivered_at: float
    under_way: Mapping[int, int] = field(default_factory=dict)
    begun: dict[int, tuple[float, int]] = field(default_factory=dict)


class SingleFlight:
    """Who takes part, and so what this node may ask of an origin.

    Attributes:
        has_part: whether this node owns anything.
        moved_at: when any member last got on.
        met_at: when this node met another for the first time.
    """

    def __init__(self, key: bytes, work: WorkList, limits: Limits) -> None:
        self.me = ""
        self.others: dict[str, MemberState] = {}
        self.has_part = False
        self.moved_at = 0.0
        self.met_at: float | None = None
        self._begins_after_s = 0.0
        self.deliver_s = _DELIVERS_WITHIN * limits.takeover_s
        """How long a member may keep others from one item."""
        self._key = key
        self._work = work
        self._limits = limits
        self._feeds = True
        self._feeders: dict[str, tuple[tuple[str, int], ...]] = {}
        self._ranked: dict[int, tuple[str, ...]] = {}
        self._order: dict[str, int] = {}

    # --- who takes part ------------------------------------------------------------------------------------

    def members(self, me: str, others: Sequence[Member], feeds: bool, now: float) -> bool:
        """Who takes part now. Whether that changed what anybody owns."""
        known = self.others
        self.others = {}
        for member in others:
            if member.address != me:
                state = known.get(member.address) or MemberState(member, now, now)
                state.member = member
                self.others[member.address] = state
        if me != self.me or feeds != self._feeds or known.keys() != self.others.keys():
            self._order = {each: hash_of(self._key, each) for each in [me, *self.others] if each}
        self.me, self._feeds = me, feeds
        feeders = {name: self._feeders_of(name) for name in {each.component for each in self._work.blobs}}
        if self.met_at is None and self.others:
            self.met_at = now
        places = [[name for name, _ in each].index(me) for each in feeders.values() if self._has(each)]
        self._begins_after_s = min(places, default=0) * _BEGIN_S
        if feeders == self._feeders:
            return False
        for state in self.others.values():
            state.moved_at = state.delivered_at = now
        self._feeders = feeders
        self.has_part = any(not each or self._has(each) for each in feeders.values())
        self._ranked.clear()
        return True

    def _has(self, feeders: tuple[tuple[str, int], ...]) -> bool:
        return any(name == self.me for name, _ in feeders)

    def _feeders_of(self, component: str) -> tuple[tuple[str, int], ...]:
        names = [
            name
            for name, state in self.others.items()
            if state.member.feeds and component in state.member.components
        ]
        if self.me and self._feeds:
            names.append(self.me)
        names.sort(key=lambda name: (self._order[name], name))
        return tuple((name, self._order[name] % _PRIME) for name in names[: self._limits.feeders])

    def may_begin(self, now: float) -> bool:
        """Feeders begin one after another: the first chunks come sooner, and then not all at once."""
        return self.met_at is None or now >= self.met_at + self._begins_after_s

    @property
    def alone(self) -> bool:
        return not self.others

    # --- who owns what -------------------------------------------------------------------------------------

    def ranked(self, item: int) -> tuple[str, ...]:
        """The feeders of an item's component in its order: its owner first. () if there is none."""
        window = self.window(item)
        ranked = self._ranked.get(window)
        if ranked is None:
            blob = self._work.blobs[self._work.blob_of(item)]
            place = self._work.offset(item) >> _WINDOW_BITS
            number = (int.from_bytes(blob.digest[:7]) ^ place * 0x9E3779B97F4A7C15) % _PRIME
            feeders = self._feeders.get(blob.component, ())  # nobody said yet who takes part
            scored = sorted(((number * factor % _PRIME, name) for name, factor in feeders), reverse=True)
            ranked = self._ranked[window] = tuple(name for _, name in scored)
        return ranked

    def window(self, item: int) -> int:
        """The piece of a file that an item lies in: what is owned is 4 MiB of it, so that one request asks for it."""
        return self._work.blob_of(item) << 44 | self._work.offset(item) >> _WINDOW_BITS

    def owns(self, item: int) -> bool:
        ranked = self.ranked(item)
        return bool(ranked) and ranked[0] == self.me

    def comes_next(self, item: int) -> bool:
        """Whether this node is the next after the owner."""
        return self.ranked(item)[1:2] == (self.me,)

    def outranks(self, name: str, item: int) -> bool:
        """Whether that member comes before this node for an item."""
        ranked = self.ranked(item)
        mine = ranked.index(self.me) if self.me in ranked else len(ranked)
        theirs = ranked.index(name) if name in ranked else len(ranked)
        return (theirs, self._order.get(name, 0)) < (mine, self._order.get(self.me, _PRIME << 8))

    # --- who gets on ---------------------------------------------------------------------------------------

    def takes(self, name: str, under_way: Mapping[int, int], now: float) -> None:
        """What a member says it is taking from origins now: item -> bytes so far."""
        state = self.others.get(name)
        if state is None:
            return
        if len(state.begun) > _REMEMBERED:
            state.begun = {item: state.begun[item] for item in state.under_way if item in state.begun}
        for item, size in under_way.items():
            begun = state.begun.get(item)
            if begun is None or size >= begun[1] + _STEP_BYTES:
                state.begun[item] = (now if begun is None else begun[0], size)
                state.moved_at = self.moved_at = now
        state.under_way = dict(under_way)

    def delivered(self, name: str, now: float) -> None:
        """A member was the first to hold something: it took that from an origin."""
        state = self.others.get(name)
        if state is not None:
            state.moved_at = state.delivered_at = self.moved_at = now

    def silent_s(self, name: str, now: float) -> float:
        """For how long a member has got nowhere, as far as anybody can see."""
        state = self.others.get(name)
        if state is None:
            return 0.0 if name == self.me else float("inf")
        over_s = now - state.delivered_at - self.deliver_s
        return max(now - state.moved_at, over_s + self._limits.takeover_s if over_s > 0 else 0.0)

    def is_under_way(self, item: int, now: float) -> bool:
        """Whether some member is credibly taking it from an origin."""
        for state in self.others.values():
            if item in state.under_way:
                begun_at = state.begun[item][0] if item in state.begun else now
                if now - begun_at < self.deliver_s and now - state.moved_at < self._limits.takeover_s:
                    return True
        return False

    def may_take_over(self, item: int, now: float) -> bool:
        """Whether all that come before this node for an item get nowhere, for long enough to be its turn."""
        ranked = self.ranked(item)
        before = ranked[: ranked.index(self.me)] if self.me in ranked else ranked
        if not before:
            return True
        turn = len(before) - 1
        if self.me not in ranked:
            turn += 1 + self._place_among_strangers()
        patience_s = self._limits.takeover_s + turn * _STAGGER_S
        return all(self.silent_s(name, now) > patience_s for name in before)

    def _place_among_strangers(self) -> int:
        mine = self._order.get(self.me)
        if mine is None:
            return _STRANGERS_MAX
        return min(_STRANGERS_MAX, sum(1 for each in self._order.values() if each < mine))


def hash_of(key: bytes, address: str) -> int:
    """hash(manifest id, address) of the design."""
    return int.from_bytes(digest_of(key + address.encode())[:8])
