"""One manifest's swarm: whom this node listens to, who takes part, and what each session is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from diachunk.digest import Digest
from diachunk.manifest.statement import Shared, Statement
from diachunk.node.around.attendance import Attendance
from diachunk.node.around.neighbours import Around, Neighbour
from diachunk.node.around.numbering import Mapped, Numbering
from diachunk.node.around.roster import How
from diachunk.node.around.subscriptions import Subscription
from diachunk.node.model import Address, Want
from diachunk.schedule.feeders import hash_of
from diachunk.schedule.members import Member
from diachunk.sources.context import SourceContext
from diachunk.sources.peer import PeerSource
from diachunk.transfer.company import Company
from diachunk.transfer.progress import Listener, Notice, silent

_THREAD_FROM_CHUNKS = 20_000
"""From so many chunks on, numbering them takes a thread: it would hold up the loop."""
_USELESS_S = 30.0
_REQUESTS = 4
_SOON_S = 0.2
_STIRRED_S = 0.05
_CROWD = 60
"""So much news a second from all nodes together is asked for: in a large swarm each tells less often. News that is a
second old costs one of sixteen machines 1% (diachunk.simulate)."""


class Joined:
    """`transfer.company.Swarm`. `began` and `ended` may be called from any thread, all else on the loop."""

    def __init__(self, shared: Shared, around: Around, listener: Listener = silent) -> None:
        self.manifest_id = shared.id
        self._shared = shared
        self._stated = isinstance(shared, Statement)
        self._around = around
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._numbering: Numbering | None = None
        self._subscriptions: dict[Address, Subscription] = {}
        self._attending: dict[Company, Attendance] = {}
        self._waiting: dict[Company, None] = {}
        self._told: set[Address] = set()
        self._waited_for: set[str] = set()
        self._hashes: dict[Address, int] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = False
        self._due: asyncio.TimerHandle | None = None
        self._stirred: asyncio.TimerHandle | None = None
        self._ready = self._loop.create_task(self._prepare(), name="diachunk-numbering")

    # --- the session's side --------------------------------------------------------------------------------

    def began(self, company: Company) -> None:
        if self._around.shelf is not None:
            with contextlib.suppress(OSError):  # closed again by now: nothing to lend
                self._around.shelf.lend(company, self._shared)
        if company.joins:
            self._post(lambda: self._begin(company))

    def ended(self, company: Company) -> None:
        if self._around.shelf is not None:
            self._around.shelf.unlend(company)
        self._post(lambda: self._end(company))

    def _post(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no company any more
            self._loop.call_soon_threadsafe(what)

    async def _prepare(self) -> None:
        if self._shared.chunk_count < _THREAD_FROM_CHUNKS:
            self._numbering = Numbering(self._shared)
        else:
            self._numbering = await asyncio.to_thread(Numbering, self._shared)
        waiting, self._waiting = self._waiting, {}
        for company in waiting:
            self._begin(company)
        self.tick()

    def _begin(self, company: Company) -> None:
        if self._closed:
            company.expects_more(False)
        elif self._numbering is None:
            self._waiting[company] = None
        elif len(company.work) < _THREAD_FROM_CHUNKS:
            self._attend(company, self._numbering.of(company.work))
        else:
            self._waiting[company] = None
            task = self._loop.create_task(self._begin_large(company, self._numbering))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _begin_large(self, company: Company, numbering: Numbering) -> None:
        mapped = await asyncio.to_thread(numbering.of, company.work)
        if company in self._waiting and not self._closed:
            del self._waiting[company]
            self._attend(company, mapped)

    def _attend(self, company: Company, mapped: Mapped) -> None:
        attendance = Attendance(company, mapped, self._make_source)
        self._attending[company] = attendance
        # Before what they take, which is judged by their rank.
        attendance.members(self._around.me, self._members())
        for one in self._subscriptions.values():
            attendance.news(one, None)
            if one.has is None:
                one.poke()
        self.tick()
        self._around.announce()

    def _end(self, company: Company) -> None:
        self._waiting.pop(company, None)
        if self._attending.pop(company, None) is not None and not self._attending:
            self._around.wants.drop(self.manifest_id)

    def _make_source(self, one: Subscription) -> PeerSource:
        return PeerSource(
            str(one.address),
            SourceContext(self._around.limits),
            authorize=self._around.talker.authorize(one.address),
            by_chunks=one.by_chunks,
            given=one.neighbour.given,
            stated=self._stated,
        )

    # --- what subscriptions tell ---------------------------------------------------------------------------

    def news(self, one: Subscription, gained: Sequence[int] | None) -> None:
        self._around.roster.heard(one.address)
        self._soon()
        for attendance in self._attending.values():
            attendance.news(one, gained)

    def silent(self, one: Subscription) -> None:
        self._soon()
        for attendance in self._attending.values():
            attendance.silent(one.address)
        if one.neighbour.lie and one.address not in self._told:
            self._told.add(one.address)
            self._listener(Notice(f"peer {one.address}: {one.neighbour.lie}"))
        if one.failures:
            self._around.lost(one.address, one.neighbour.trouble)

    def wanted(self) -> Sequence[tuple[int, Digest]]:
        return next((each.wanted(_REQUESTS) for each in self._attending.values()), ())

    def _interval_s(self) -> float:
        return max(self._around.limits.have_interval_s, len(self._subscriptions) / _CROWD)

    # --- once a second, and when somebody comes --------------------------------------------------------------

    def _soon(self) -> None:
        """Who takes part may have changed. Looked at once for all that is heard at about the same time."""
        if self._due is None and not self._closed:
            self._due = self._loop.call_later(_SOON_S, self._update)

    def stir(self) -> None:
        """Somebody new is there, or says that it wants something else: looked at once for all that come together."""
        if self._stirred is None and self._attending and not self._closed:
            self._stirred = self._loop.call_later(_STIRRED_S, self.tick)

    def tick(self) -> None:
        """Brings everything up to date: whom to listen to, who takes part, what is wanted here."""
        if self._stirred is not None:
            self._stirred.cancel()
            self._stirred = None
        if not self._closed and self._numbering is not None:
            self._choose(self._numbering.bits)
            self._update()

    def _update(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._closed or self._numbering is None:
            return
        members = self._members()
        listening = any(each.has is None and not each.ended for each in self._subscriptions.values())
        expects = listening or bool(members) or self._around.is_looking() or self._awaits()
        for attendance in self._attending.values():
            attendance.members(self._around.me, members)
            attendance.expects_more(expects)
            self._around.wants.put(
                Want(self.manifest_id, attendance.components, attendance.company.feeds, attendance.taking())
            )

    def _awaits(self) -> bool:
        """Whether a machine that was named may bring it yet: one that does not answer, or has nothing of it so far, is
        asked again and again. A person hears of each once.
        """
        found = False
        for view in self._around.named() if self._attending else ():
            one = self._subscriptions.get(view.address)
            # Nobody gets pieces of a statement but who draws it, and says so.
            brings = one is not None and one.has is not None and (self._stated or any(one.has))
            if brings or (view.neighbour is not None and view.neighbour.lie):
                continue
            found = True
            text = f"waiting for peer {view.address}: {view.trouble or 'has nothing of it yet'}"
            if text not in self._waited_for:
                self._waited_for.add(text)
                self._listener(Notice(text))
        return found

    def _choose(self, bits: int) -> None:
        """Listens to as many as may be, those of most use first; to a node at one of its addresses."""
        around = self._around
        order: list[tuple[int, int, Address]] = []
        known_at = set(self._faces().values())
        for address, neighbour in around.neighbours.items():
            if address in known_at or (neighbour.lie and address in self._subscriptions):
                order.append((self._group(neighbour), self._hash_of(address), address))
        order.sort()
        chosen = {address for _, _, address in order[: around.limits.neighbours_max]}
        for address in [each for each in self._subscriptions if each not in chosen]:
            self._drop(address)
        for address in chosen:
            neighbour = around.neighbours[address]
            one = self._subscriptions.get(address)
            if one is not None and one.ended and not neighbour.lie:
                self._drop(address)  # another process answers there by now
                one = None
            if one is None and not neighbour.lie:
                one = Subscription(
                    neighbour,
                    self.manifest_id,
                    bits,
                    around.talker,
                    around.limits,
                    self,
                    self._interval_s,
                    stated=self._stated,
                )
                self._subscriptions[address] = one
                one.start()
            elif one is not None and one.has is None and neighbour.reached and one.failures:
                one.poke()
            elif one is not None and one.by_chunks and self._wants_of(address) is not None:
                one.poke()  # it said that it fetches this: so it knows the manifest by now, or is gone

    def _faces(self) -> dict[str, Address]:
        """At which of its addresses each node is known here: one that was named, else the lowest, so that all agree."""
        around = self._around
        faces: dict[str, Address] = {}
        for address, neighbour in sorted(
            around.neighbours.items(),
            key=lambda each: (around.how(each[0]) is not How.NAMED, ":" in each[0].host, each[0]),
        ):
            if not neighbour.lie and (neighbour.reached or address in self._subscriptions):
                faces.setdefault(neighbour.facts.node, address)
        return faces

    def _hash_of(self, address: Address) -> int:
        known = self._hashes.get(address)
        if known is None:
            if len(self._hashes) >= 2 * self._around.limits.peers_known_max:
                self._hashes.clear()
            known = self._hashes[address] = hash_of(self.manifest_id, str(address))
        return known

    def _group(self, neighbour: Neighbour) -> int:
        """Of how much use it is to listen to it; 0 is most. Whom the user named always comes first."""
        one = self._subscriptions.get(neighbour.address)
        if one is not None and (one.ended or one.failures > 3):
            return 9
        if self._around.how(neighbour.address) is How.NAMED:
            return 0
        wants = self._wants_of(neighbour.address)
        holding = next((each for each in neighbour.facts.manifests if each.id == self.manifest_id), None)
        group = 4
        if wants is not None:
            group = 1 if wants.feeds else 2
        elif (holding is not None and holding.complete) or (one is not None and one.complete):
            group = 2
        elif holding is not None or (one is not None and one.has is not None and any(one.has)):
            group = 3
        if one is None:
            return group
        # Who says it has something and gave nothing for long makes room for the others, if there are any.
        listened_s = self._loop.time() - one.since_s
        useless = one.has is not None and not neighbour.given.size_bytes and listened_s > _USELESS_S
        return group + 3 if useless and wants is None else group

    def _drop(self, address: Address) -> None:
        one = self._subscriptions.pop(address)
        task = one.stop()
        if task is not None:
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        for attendance in self._attending.values():
            attendance.silent(address)

    # --- who takes part ------------------------------------------------------------------------------------

    def _wants_of(self, address: Address) -> Want | None:
        """What it is after of this manifest, as far as it said so: here lately, or when it announced itself."""
        one = self._subscriptions.get(address)
        if one is not None and one.has is not None and not one.by_chunks:
            return None if one.wants is None else Want(self.manifest_id, one.wants, one.feeds)
        known = self._around.roster.get(address)
        wants = known.wants if known is not None else ()
        return next((each for each in wants if each.manifest_id == self.manifest_id), None)

    def _members(self) -> list[Member]:
        """Nodes that answered us and fetch the same; each once, whatever addresses it has."""
        found: list[Member] = []
        # What a statement is of is fetched whole, and everybody calls its parts something else.
        all_parts = frozenset(part for each in self._attending.values() for part in each.components)
        for address in self._faces().values():
            neighbour = self._around.neighbours[address]
            wants = self._wants_of(address)
            one = self._subscriptions.get(address)
            gone = not neighbour.reached or (one is not None and (one.ended or one.failures > 1))
            if wants is not None and wants.components and not gone:
                parts = all_parts if self._stated and all_parts else frozenset(wants.components)
                found.append(Member(str(address), parts, wants.feeds))
        return found

    def incomplete(self) -> list[str]:
        """Addresses of members that are not done, as far as we know."""
        return [member.address for member in self._members()]

    def complaints(self) -> list[tuple[str, str]]:
        """(address, what it did) of those that were caught giving answers that no node gives."""
        return [
            (str(each.address), each.neighbour.lie)
            for each in self._subscriptions.values()
            if each.neighbour.lie
        ]

    # --- the end -------------------------------------------------------------------------------------------

    async def close(self) -> None:
        self._closed = True
        for timer in (self._due, self._stirred):
            if timer is not None:
                timer.cancel()
        for company in [*self._attending, *self._waiting]:
            company.expects_more(False)
        self._attending.clear()
        self._around.wants.drop(self.manifest_id)
        for address in list(self._subscriptions):
            self._drop(address)
        self._ready.cancel()
        await asyncio.wait({self._ready, *self._under_way})
