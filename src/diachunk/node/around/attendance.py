"""One session and the nodes that it may take from: what they say becomes what `Company` is told. On the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diachunk.digest import Digest
from diachunk.node.around.numbering import Mapped
from diachunk.node.around.subscriptions import DIGESTS_ASKED_MAX, Subscription
from diachunk.node.model import Address
from diachunk.schedule.members import Member
from diachunk.sources.peer import PeerSource
from diachunk.transfer.company import Company

PEERS_MAX = 512
"""Sources that one session ever gets from the network; the list of those that failed stays readable."""
_TAKING_MAX = 256

MakeSource = Callable[[Subscription], PeerSource]


class Attendance:
    """Peers of one session, by address."""

    def __init__(self, company: Company, mapped: Mapped, make_source: MakeSource) -> None:
        self.company = company
        self.mapped = mapped
        self.components = tuple(sorted({blob.component for blob in company.work.blobs}))
        self._make_source = make_source
        self._numbers: dict[Address, tuple[int, PeerSource]] = {}
        self._away: set[Address] = set()
        self._members: tuple[str, tuple[Member, ...]] | None = None
        self._expects = True

    def news(self, one: Subscription, gained: Sequence[int] | None) -> None:
        """A node said what it has: `gained`, or all of it if None."""
        has = one.has
        if has is None:
            return
        known = self._numbers.get(one.address)
        if known is None:
            self._add(one, has)
        else:
            number, source = known
            source.by_chunks = one.by_chunks
            if one.address in self._away:
                self._away.discard(one.address)
                self.company.returns(number, self.mapped.bitmap(has))
            elif gained is None:
                self.company.holds(number, self.mapped.bitmap(has))
            elif gained:
                self.company.gains(number, list(self.mapped.items(gained)))
        if one.wants is not None:
            self.company.member_takes(str(one.address), self.mapped.under_way(one.taking))

    def _add(self, one: Subscription, has: bytearray) -> None:
        bitmap = self.mapped.bitmap(has)
        # Whoever has nothing of use and fetches nothing is no source yet.
        if len(self._numbers) >= PEERS_MAX or (one.wants is None and not len(bitmap)):
            return
        source = self._make_source(one)
        self._numbers[one.address] = (self.company.add_peer(source, bitmap), source)

    def silent(self, address: Address) -> None:
        """It does not answer, or is not listened to any more."""
        known = self._numbers.get(address)
        if known is not None and address not in self._away:
            self._away.add(address)
            self.company.leaves(known[0])

    def members(self, me: str, others: Sequence[Member]) -> None:
        now = (me, tuple(sorted(others, key=lambda each: each.address)))
        if now != self._members:
            self._members = now
            self.company.members(*now)

    def expects_more(self, wanted: bool) -> None:
        if wanted != self._expects:
            self._expects = wanted
            self.company.expects_more(wanted)

    def taking(self) -> tuple[tuple[int, int], ...]:
        return self.mapped.pairs(self.company.taking(), _TAKING_MAX)

    def wanted(self, requests: int) -> list[tuple[int, Digest]]:
        """(number, digest) of the session's items, as many as so many requests can ask for."""
        work = self.company.work
        return [
            (self.mapped.number_of[item], work.digest(item))
            for item in range(min(len(work), requests * DIGESTS_ASKED_MAX))
            if self.mapped.number_of[item] >= 0
        ]
