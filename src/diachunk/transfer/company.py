"""A running session as the other machines' side sees it: peers come, gain, and go while lanes work.

`node/` implements `Swarm`; the engine knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.schedule.members import Member
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.store.partial import Partial


class Company:
    """Safe to call from any thread until `Swarm.ended`; after it every call does nothing.

    Items are those of `work`. Peers are known by the number that `add_peer` gave.

    Attributes:
        work: what the session is to make present.
        files: where it is assembled; files[n] is blob n of `work`. `Partial.follow` tells of each chunk.
    """

    work: WorkList
    files: Sequence[Partial]

    def add_peer(self, source: Source, has: Bitmap) -> int:
        """A peer that holds these items. Its label must be its address: "10.0.0.7:8420"."""
        raise NotImplementedError

    def gains(self, peer: int, items: Iterable[int]) -> None:
        """It holds these as well."""
        raise NotImplementedError

    def holds(self, peer: int, has: Bitmap) -> None:
        """It holds exactly these: something was lost, or nobody knows what was missed."""
        raise NotImplementedError

    def leaves(self, peer: int) -> None:
        """It is gone, or no longer listened to: nothing more is asked of it."""
        raise NotImplementedError

    def returns(self, peer: int, has: Bitmap) -> None:
        """It is back, and holds these."""
        raise NotImplementedError

    def members(self, me: str, others: Sequence[Member]) -> None:
        """Who takes part in single flight now. `me` is this node's address as others see it; "" while unknown, or
        when it does not share: then it is no member, but still leaves the origins to those who are.
        """
        raise NotImplementedError

    def member_takes(self, address: str, under_way: Mapping[int, int]) -> None:
        """What a member is taking from origins at this moment, by item: bytes so far."""
        raise NotImplementedError

    def taking(self) -> Mapping[int, int]:
        """What this session is taking from origins at this moment, by item: bytes so far."""
        raise NotImplementedError

    @property
    def feeds(self) -> bool:
        """Whether this session has an origin that is not known to be useless."""
        raise NotImplementedError


class Swarm(Protocol):
    """The other machines. One for a fetch of one manifest, through all of its sessions."""

    manifest_id: Digest

    def began(self, company: Company) -> None:
        """Lanes are running. Called on the session's thread; must not block."""
        ...

    def ended(self, company: Company) -> None:
        """The session is over: `company` must not be used any more. Must not block."""
        ...
