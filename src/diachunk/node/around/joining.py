"""One manifest's swarm: what each session of it is told of the others, and what others may know of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from diachunk.digest import Digest
from diachunk.manifest.statement import Shared
from diachunk.node.around.attendance import Attendance
from diachunk.node.around.listening import Listening
from diachunk.node.around.neighbours import Around
from diachunk.node.around.numbering import Mapped, Numbering
from diachunk.node.around.subscriptions import Subscription
from diachunk.node.model import Address, Want
from diachunk.schedule.members import Member
from diachunk.sources.context import SourceContext
from diachunk.sources.peer import PeerSource
from diachunk.transfer.company import Company
from diachunk.transfer.progress import Listener, Notice, silent

_THREAD_FROM_CHUNKS = 20_000
"""From so many chunks on, numbering them takes a thread: it would hold up the loop."""
_REQUESTS = 4
_SOON_S = 0.2
_STIRRED_S = 0.05


class Joined:
    """`transfer.company.Swarm`. `began` and `ended` may be called from any thread, all else on the loop."""

    def __init__(self, shared: Shared, around: Around, listener: Listener = silent) -> None:
        self.manifest_id = shared.id
        self._shared = shared
        self._around = around
        self._listening = Listening(shared, around, self, self._dropped)
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._numbering: Numbering | None = None
        self._attending: dict[Company, Attendance] = {}
        self._waiting: dict[Company, None] = {}
        self._told: set[Address] = set()
        self._waited_for: set[str] = set()
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
        for one in self._listening.to.values():
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
            stated=self._listening.stated,
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
            self._listening.choose(self._numbering.bits)
            self._update()

    def _update(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._closed or self._numbering is None:
            return
        members = self._members()
        listening = any(each.has is None and not each.ended for each in self._listening.to.values())
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
            one = self._listening.to.get(view.address)
            # Nobody gets pieces of a statement but who draws it, and says so.
            brings = one is not None and one.has is not None and (self._listening.stated or any(one.has))
            if brings or (view.neighbour is not None and view.neighbour.lie):
                continue
            found = True
            text = f"waiting for peer {view.address}: {view.trouble or 'has nothing of it yet'}"
            if text not in self._waited_for:
                self._waited_for.add(text)
                self._listener(Notice(text))
        return found

    # --- who takes part ------------------------------------------------------------------------------------

    def _members(self) -> list[Member]:
        return self._listening.members(
            frozenset(part for each in self._attending.values() for part in each.components)
        )

    def _dropped(self, address: Address) -> None:
        for attendance in self._attending.values():
            attendance.silent(address)

    def incomplete(self) -> list[str]:
        """Addresses of members that are not done, as far as we know."""
        return [member.address for member in self._members()]

    def complaints(self) -> list[tuple[str, str]]:
        """(address, what it did) of those that were caught giving answers that no node gives."""
        return self._listening.complaints()

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
        self._ready.cancel()
        await self._listening.close()
        await asyncio.wait({self._ready, *self._under_way})
