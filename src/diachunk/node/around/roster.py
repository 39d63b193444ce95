"""Who is known: addresses, from whom we have them, and how long ago they were heard of. Pure: no IO, clock injected.

For one loop: not safe between threads.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.node.model import Address, Want
from diachunk.schedule.feeders import hash_of

PER_INFORMANT_MAX = 64
"""Addresses that are kept from one informant (P14)."""
PASSED_ON_MAX = 64
_OWN_S = 60.0


class How(enum.IntEnum):
    """How an address came to us, the most trusted first."""

    NAMED = 0
    DNS = 1
    MDNS = 2
    ANNOUNCED = 3
    EXCHANGE = 4

    @property
    def word(self) -> str:
        """As people and settings know it."""
        return {How.NAMED: "named", How.DNS: "dns", How.MDNS: "mdns"}.get(self, "exchange")


@dataclass(slots=True)
class Known:
    """One address.

    Attributes:
        heard_at: when it last gave a sign of life, as far as we know: to us, or to whoever told us.
        informant: who told us (P14 counts by it); "" where the user, DNS or its own announcement did.
        met: it answered us as a node.
        node: its id once met, or what it called itself; store: likewise.
        wants: what it said it is after, for as long as it is heard.
    """

    address: Address
    how: How
    heard_at: float
    informant: str = ""
    met: bool = False
    node: str = ""
    store: str = ""
    wants: tuple[Want, ...] = ()


class Roster:
    """The addresses of other nodes: one entry each, bounded in number, forgotten when not heard of.

    Attributes:
        on_change: called when somebody new is known, or says that it wants something else.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float], own_store: str = "") -> None:
        self._limits = limits
        self._clock = clock
        self._own_store = own_store
        self._known: dict[Address, Known] = {}
        self._from: dict[str, int] = {}
        self._own: dict[Address, float] = {}
        self.on_change: Callable[[], None] = lambda: None

    @property
    def count(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def get(self, address: Address) -> Known | None:
        return self._known.get(address)

    # --- learning ------------------------------------------------------------------------------------------

    def note(self, address: Address, how: How, *, informant: str = "", age_s: float = 0.0) -> bool:
        """Somebody says that a node is there. Returns whether it is known now."""
        now = self._clock()
        heard_at = now - max(0.0, age_s)
        if self._is_own(address, now) or (how is How.EXCHANGE and age_s >= self._limits.peer_ttl_s):
            return False
        known = self._known.get(address)
        if known is not None:
            known.heard_at = max(known.heard_at, heard_at)
            if how < known.how:
                self._count(known.informant, -1)
                known.how, known.informant = how, ""
            return True
        if informant and self._from.get(informant, 0) >= PER_INFORMANT_MAX:
            return False
        if len(self._known) >= self._limits.peers_known_max and not self._make_room(how):
            return False
        self._known[address] = Known(address, how, heard_at, informant)
        self._count(informant, 1)
        self.on_change()
        return True

    def announced(self, host: str, port: int | None, node: str, store: str, wants: Iterable[Want]) -> None:
        """A node says of itself that it is there (P9). `host` is its connection's address; no port: not to be asked."""
        if port is None:
            return
        address = Address(host, port)
        if store == self._own_store and store:
            self.is_own(address)
            return
        # Its host vouches for all of its ports: one machine cannot fill the roster.
        if not self.note(address, How.ANNOUNCED, informant=host):
            return
        known = self._known[address]
        if not known.met:
            known.node, known.store = node, store
        self.says(address, tuple(wants))

    def says(self, address: Address, wants: tuple[Want, ...]) -> None:
        """What a node wants, in its own words."""
        known = self._known.get(address)
        if known is None:
            return
        before = {(want.manifest_id, want.components, want.feeds) for want in known.wants}
        known.wants = wants
        known.heard_at = self._clock()
        if before != {(want.manifest_id, want.components, want.feeds) for want in wants}:
            self.on_change()

    def answered(self, address: Address, node: str, store: str) -> bool:
        """It answered us as a node. Returns False where it is of our own store: then it is no peer (P16)."""
        if store == self._own_store and store:
            self.is_own(address)
            return False
        known = self._known.get(address)
        if known is not None:
            known.met, known.node, known.store, known.heard_at = True, node, store, self._clock()
        return True

    def heard(self, address: Address) -> None:
        """It gave a sign of life."""
        known = self._known.get(address)
        if known is not None:
            known.heard_at = self._clock()

    # --- forgetting ----------------------------------------------------------------------------------------

    def is_own(self, address: Address) -> None:
        """This address is ourselves, or another process on our store: not to be asked again for a while."""
        self.forget(address)
        if len(self._own) >= PER_INFORMANT_MAX:
            self._own.clear()
        self._own[address] = self._clock()

    def _is_own(self, address: Address, now: float) -> bool:
        return now - self._own.get(address, -_OWN_S) < _OWN_S

    def forget(self, address: Address) -> None:
        known = self._known.pop(address, None)
        if known is not None:
            self._count(known.informant, -1)

    def forget_from(self, informant: str) -> None:
        """Forgets what one informant told us and nobody else confirmed."""
        for known in self:
            if known.informant == informant and known.how is How.EXCHANGE and not known.met:
                self.forget(known.address)

    def expire(self) -> list[Address]:
        """Forgets whoever was not heard of for too long, and says whom. The user's own names stay."""
        before = self._clock() - self._limits.peer_ttl_s
        gone = [each.address for each in self if each.heard_at <= before and each.how is not How.NAMED]
        for address in gone:
            self.forget(address)
        return gone

    def _make_room(self, how: How) -> bool:
        """Full: whoever was only told of and never met goes, the one longest unheard of first."""
        worst = max(
            (each for each in self._known.values() if not each.met and each.how >= how),
            key=lambda each: (each.how, -each.heard_at),
            default=None,
        )
        if worst is None or (worst.how == how and how >= How.ANNOUNCED):
            return False
        self.forget(worst.address)
        return True

    def _count(self, informant: str, by: int) -> None:
        if informant:
            self._from[informant] = self._from.get(informant, 0) + by
            if self._from[informant] <= 0:
                del self._from[informant]

    # --- passing on ----------------------------------------------------------------------------------------

    def others(
        self, host: str, manifest_ids: Sequence[Digest], port: int | None = None
    ) -> list[tuple[Address, float]]:
        """Whom a node is told of that announces itself (P9): addresses, and seconds since each was heard of.

        At most 64: first those that want the same, lowest hash first, so that the feeders are always among them and
        everybody's view of who they are comes to agree; then whoever was heard of last. Only those that spoke
        to us themselves: what others claim is not passed on.

        Args:
            host: the asker's address, and `port` where it listens: it is not told of itself.
        """
        now = self._clock()
        fresh = now - self._limits.peer_ttl_s
        asker = Address(host, port) if port is not None else None
        wanted = set(manifest_ids)

        def order(known: Known) -> tuple[int, int, float]:
            shared = [want for want in known.wants if want.manifest_id in wanted]
            lowest = min((hash_of(want.manifest_id, str(known.address)) for want in shared), default=0)
            group = 2 if not shared else 0 if any(want.feeds for want in shared) else 1
            return group, lowest, now - known.heard_at

        speaking = [
            each
            for each in self._known.values()
            if (each.met or each.how is How.ANNOUNCED) and each.heard_at > fresh and each.address != asker
        ]
        first = sorted(speaking, key=order)[:PASSED_ON_MAX]
        return [(each.address, max(0.0, now - each.heard_at)) for each in first]
