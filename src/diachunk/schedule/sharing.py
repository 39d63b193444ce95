"""What the other machines' side tells a schedule, and asks it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Rng, Tier
from diachunk.schedule.ledger import Ledger
from diachunk.schedule.members import Member
from diachunk.schedule.swarm import Swarm
from diachunk.schedule.work import WorkList


class Sharing(Ledger):
    """A ledger with peers and members. Items are those of the work list.

    Attributes:
        expects_more: sources may still come, so that having none for what is left is no end before the patience.
    """

    def __init__(
        self, work: WorkList, limits: Limits, clock: Callable[[], float], rng: Rng, *, key: bytes = b""
    ) -> None:
        """`key` is what the members of a swarm have in common: the manifest's id."""
        super().__init__(work, limits, clock, rng)
        self.expects_more = False
        self._key = key

    def _shared(self) -> Swarm:
        """Made when the first peer or member comes: a plain fetch pays nothing for it."""
        if self._swarm is None:
            self._swarm = Swarm(self._board, self._key, self.limits, self._rng)
        return self._swarm

    # --- peers ---------------------------------------------------------------------------------------------

    def add_peer(self, label: str, has: Bitmap) -> int:
        """A peer that holds these items; returns its number. `label` is its address as members know it."""
        return self._shared().add(label, has)

    def peer_gains(self, source: int, items: Iterable[int]) -> None:
        """It holds these as well."""
        self._shared().gains(source, items, self._clock())

    def peer_holds(self, source: int, has: Bitmap) -> None:
        """It holds exactly these."""
        self._shared().holds(source, has)

    def peer_leaves(self, source: int) -> None:
        """Nothing more is asked of it. What is under way there ends by itself."""
        self._shared().holds(source, None)

    def peer_returns(self, source: int, has: Bitmap) -> None:
        """It is back, and holds these."""
        self._shared().holds(source, has)

    # --- single flight -------------------------------------------------------------------------------------

    def members(self, me: str, others: Sequence[Member]) -> None:
        """Who takes part in single flight now.

        Args:
            me: this node's address as the others know it; "" while unknown, or when it does not share.
        """
        if others or self._swarm is not None:
            self._shared().members(me, others, self.feeds, self._claims, self._clock())

    def member_takes(self, address: str, under_way: Mapping[int, int]) -> None:
        """What a member is taking from origins at this moment: item -> bytes so far."""
        if self._swarm is not None:
            self._swarm.takes(address, under_way, self._claims, self._clock())

    def taking(self) -> dict[int, int]:
        """What this node is taking from origins at this moment: item -> bytes so far."""
        under_way: dict[int, int] = {}
        for claim in self._claims:
            health = self.health(claim.source)
            if health.tier is Tier.NETWORK and not health.peer and not claim.cancelled:
                under_way.update(self._parts(claim))
        return under_way

    def _parts(self, claim: Claim) -> Iterable[tuple[int, int]]:
        for item, ref in zip(claim.run.items, claim.run.refs, strict=True):
            start = ref.offset - claim.run.offset
            if claim.stream and claim.received_bytes < start:
                break  # A stream is read from its start, and what follows may come from elsewhere before.
            if self._board.is_in_flight(item):
                yield item, min(ref.size, max(0, claim.received_bytes - start))

    @property
    def feeds(self) -> bool:
        """Whether there is an origin to ask that is not known to be useless."""
        blobs = len(self.work.blobs)
        return any(
            health.tier is Tier.NETWORK
            and not (health.peer or health.out or health.parked)
            and len(health.missing_blobs) < blobs
            for health in self.healths()
        )
