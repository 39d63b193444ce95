"""Calls nodes that are known and were not met, or are lost, each when its turn comes. P14 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from diachunk.node.around.answers import NodeFacts
from diachunk.node.around.dialling import Dialling, may_be_dialled
from diachunk.node.around.neighbours import Neighbour
from diachunk.node.around.roster import How, Known, Roster
from diachunk.node.around.talking import Unreached
from diachunk.node.model import Address

_AT_ONCE = 16
_HASTE_S = 0.25
_PENDING_S = 0.5
_IDLE_S = 5.0
_NAMED_AGAIN_S = 1.5
_REACHED_AGAIN_S = 1.0
_BACKOFF_MAX_S = 30.0
_STRANGER_AGAIN_S = 60.0
_SILENT_S = 1.0
IS_CALLED = "is being called"
IS_SILENT = "no answer yet"
"""What a firewall that drops packets looks like until the first call has timed out, which takes seconds."""


class Calls(Protocol):
    """The neighbourhood, as this sees it."""

    roster: Roster
    neighbours: dict[Address, Neighbour]

    def clock(self) -> float: ...
    def is_reached(self, address: Address) -> bool: ...
    async def met(self, neighbour: Neighbour) -> None:
        """A node answered that did not before."""
        ...


@dataclass(slots=True)
class _Try:
    """Calls to an address that did not answer yet.

    Attributes:
        named: the user named it, or a name that led to it.
    """

    failures: int = 0
    due: float = 0.0
    trouble: str = ""
    under_way: bool = False
    called_at: float = 0.0
    named: bool = False

    def words(self, now: float) -> str:
        if self.trouble:
            return self.trouble
        silent = self.under_way and now - self.called_at >= _SILENT_S
        return IS_SILENT if silent else IS_CALLED


class Calling:
    """Attributes: changed: set when somebody may have to be called now."""

    def __init__(
        self,
        around: Calls,
        ask: Callable[[Address], Awaitable[tuple[NodeFacts, float]]],
        allows: Callable[[str], bool],
    ) -> None:
        """Args:
        ask: what a node is, and how long it took to say so; raises Unreached.
        allows: whether an address may be called that others told us of.
        """
        self.changed = asyncio.Event()
        self.dialling = Dialling(around.clock)
        self._around = around
        self._ask = ask
        self._allows = allows
        self._tries: dict[Address, _Try] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def keep_calling(self) -> None:
        try:
            while True:
                self.changed.clear()
                pause_s = self._call_those_due()
                try:
                    async with asyncio.timeout(pause_s):
                        await self.changed.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._under_way:
                task.cancel()

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)

    @property
    def has_untried(self) -> bool:
        """Whether an address is known that was never called to the end."""
        return any(
            each.address not in self._around.neighbours
            and not self._tries.get(each.address, _UNTRIED).failures
            and not self.dialling.left_alone(each.address)
            for each in self._around.roster
        )

    def troubles(self) -> Mapping[Address, str]:
        """Who was called and did not answer yet, and why."""
        now = self._around.clock()
        return {address: one.words(now) for address, one in self._tries.items()}

    def lost(self, address: Address, trouble: str) -> None:
        """A node that was met gave no answer."""
        self._tries[address] = _Try(1, self._around.clock() + _REACHED_AGAIN_S, trouble)
        self.changed.set()

    def forget_unknown(self) -> None:
        """Of a name with several addresses one is in the roster at a time: what the others did is still known when
        their turn comes again, and nobody is called twice at once.
        """
        before = self._around.clock() - _BACKOFF_MAX_S
        for address, one in list(self._tries.items()):
            lasts = one.under_way or (one.named and one.due > before)
            if self._around.roster.get(address) is None and not lasts:
                del self._tries[address]

    # --- whose turn it is ----------------------------------------------------------------------------------

    def _call_those_due(self) -> float:
        """Returns how long nobody else has to be called."""
        now, pause_s = self._around.clock(), _IDLE_S
        for known in sorted(self._around.roster, key=lambda each: each.how):
            if self._around.is_reached(known.address):
                continue
            pause_s = min(pause_s, _PENDING_S)
            one = self._tries.setdefault(known.address, _Try())
            if one.under_way or now < one.due:
                continue
            if len(self._under_way) >= _AT_ONCE or not self._may_call(known):
                pause_s = _HASTE_S
                continue
            one.under_way, one.called_at, one.named = True, now, known.how is How.NAMED
            task = asyncio.get_running_loop().create_task(
                self._call_in_turn(known, one), name=f"diachunk-call-{known.address}"
            )
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return pause_s

    def _may_call(self, known: Known) -> bool:
        if known.how <= How.DNS or known.met:
            return True
        hearsay = known.how is How.EXCHANGE
        if not self.dialling.may_dial(hearsay=hearsay):
            return False
        if (
            self.dialling.left_alone(known.address)
            or not may_be_dialled(known.address, None, self._allows)
            or (known.informant and not self.dialling.hears(known.informant))
        ):
            self._tries[known.address].due = self._around.clock() + _REACHED_AGAIN_S
            return False
        self.dialling.dialled(hearsay=hearsay)
        return True

    async def _call_in_turn(self, known: Known, one: _Try) -> None:
        try:
            trouble = await self.call(known.address)
        finally:
            one.under_way = False
        if trouble is not None:
            self._failed(known, one, trouble)
            return
        self._tries.pop(known.address, None)
        self.dialling.answered(known.address)
        neighbour = self._around.neighbours.get(known.address)
        if neighbour is not None:
            await self._around.met(neighbour)

    def _failed(self, known: Known, one: _Try, trouble: str) -> None:
        one.trouble = trouble
        one.failures += 1
        if known.how > How.DNS and not known.met:
            self.dialling.unanswered(known.address, known.informant)
            one.due = self._around.clock() + _STRANGER_AGAIN_S
            return
        ceiling = min(_REACHED_AGAIN_S * 2**one.failures, _BACKOFF_MAX_S)
        if known.how is How.NAMED:
            ceiling = _NAMED_AGAIN_S
        one.due = self._around.clock() + ceiling * random.uniform(0.6, 1.0)

    async def call(self, address: Address) -> str | None:
        """Asks a node what it is. None: it answered, or it is ourselves; else what was wrong."""
        neighbours = self._around.neighbours
        known = neighbours.get(address)
        try:
            facts, seconds = await self._ask(address)
        except Unreached as error:
            if known is not None:
                known.reached, known.trouble = False, error.detail
            return error.detail
        if not self._around.roster.answered(address, facts.node, facts.store):
            neighbours.pop(address, None)
            return None
        if known is None:
            known = neighbours[address] = Neighbour(address, facts)
        elif known.facts.node != facts.node:
            known.lie = ""  # another process: what the one before did is no matter of its
        known.facts, known.rtt_s = facts, seconds
        known.reached, known.trouble = True, ""
        return None


_UNTRIED = _Try()
