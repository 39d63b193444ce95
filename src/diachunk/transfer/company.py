"""A running session as the other machines' side sees it: peers come, gain, and go while lanes work.

`node/` implements `Swarm`; the engine knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.schedule.members import Member
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.store.partial import Partial
from diachunk.transfer.desk import Desk

NOBODY = -1


class Company:
    """Safe to call from any thread; once the session is over every call does nothing.

    Items are those of `work`. Peers are known by the number that `add_peer` gave.

    Attributes:
        work: what the session is to make present.
        files: where it is assembled; files[n] is blob n of `work`. `Partial.follow` tells of each chunk.
        joins: whether it takes from others; a session that does not only shows them what it gets elsewhere.
    """

    def __init__(self, desk: Desk, files: Sequence[Partial], *, joins: bool = True) -> None:
        self.work: WorkList = desk.work
        self.files = files
        self.joins = joins
        self._desk = desk
        self._over = False

    # --- peers ---------------------------------------------------------------------------------------------

    def add_peer(self, source: Source, has: Bitmap) -> int:
        """A peer that holds these items. Its label must be its address: "10.0.0.7:8420"."""
        with self._desk.changed:
            if not self._over:
                number = self._desk.schedule.add_peer(source.label, has)
                self._desk.sources.append(source)
                self._desk.changed.notify_all()
                return number
        source.close()
        return NOBODY

    def gains(self, peer: int, items: Iterable[int]) -> None:
        """It holds these as well."""
        gained = list(items)

        def tell() -> None:
            self._desk.schedule.peer_gains(peer, gained)

        self._tell(tell, peer, wakes=len(gained))

    def holds(self, peer: int, has: Bitmap) -> None:
        """It holds exactly these: something was lost, or nobody knows what was missed."""
        self._tell(lambda: self._desk.schedule.peer_holds(peer, has), peer, wakes=len(self.work))

    def leaves(self, peer: int) -> None:
        """It is gone, or no longer listened to: nothing more is asked of it."""
        self._tell(lambda: self._desk.schedule.peer_leaves(peer), peer, wakes=1)

    def returns(self, peer: int, has: Bitmap) -> None:
        """It is back, and holds these."""
        self._tell(lambda: self._desk.schedule.peer_returns(peer, has), peer, wakes=len(self.work))

    def expects_more(self, wanted: bool) -> None:
        """Whether sources may still come. While they may, the session waits for as long as its patience although
        nothing it knows can bring what is left. True from the beginning; say False once nobody was found.
        """

        def tell() -> None:
            self._desk.schedule.expects_more = wanted

        self._tell(tell, wakes=1)

    # --- single flight -------------------------------------------------------------------------------------

    def members(self, me: str, others: Sequence[Member]) -> None:
        """Who takes part in single flight now. `me` is this node's address as others see it; "" while unknown, or
        when it does not share: then it is no member, but still leaves the origins to those who are.
        """
        self._tell(lambda: self._desk.schedule.members(me, others), wakes=1)

    def member_takes(self, address: str, under_way: Mapping[int, int]) -> None:
        """What a member is taking from origins at this moment, by item: bytes so far."""
        self._tell(lambda: self._desk.schedule.member_takes(address, under_way))

    def taking(self) -> Mapping[int, int]:
        """What this session is taking from origins at this moment, by item: bytes so far."""
        with self._desk.changed:
            return {} if self._over else self._desk.schedule.taking()

    @property
    def feeds(self) -> bool:
        """Whether this session has an origin that is not known to be useless."""
        with self._desk.changed:
            return not self._over and self._desk.schedule.feeds

    # --- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The session is over."""
        with self._desk.changed:
            self._over = True

    def _tell(self, tell: Callable[[], None], peer: int = 0, *, wakes: int = 0) -> None:
        with self._desk.changed:
            if self._over or peer == NOBODY:
                return
            tell()
            if wakes:
                self._desk.changed.notify(min(wakes, self._desk.limits.lanes))
        self._desk.wake_losers()


class Swarm(Protocol):
    """The other machines. One for a fetch of one manifest, through all of its sessions."""

    manifest_id: Digest

    def began(self, company: Company) -> None:
        """Lanes are running. Called on the session's thread; must not block."""
        ...

    def ended(self, company: Company) -> None:
        """The session is over: `company` must not be used any more. Must not block."""
        ...
