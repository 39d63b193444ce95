"""Who is around: finds other nodes, keeps in touch with them, and brings them together with what is fetched here.

One object for a process, on one loop. Nothing that others do is an error here; at worst nobody is found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.manifest.statement import Shared
from diachunk.node.around.calling import Calling
from diachunk.node.around.dialling import informant_of, may_be_dialled
from diachunk.node.around.greeting import Greeting
from diachunk.node.around.joining import Joined
from diachunk.node.around.neighbours import Identity, Lending, Neighbour, NodeView, Wanting
from diachunk.node.around.questions import Questions
from diachunk.node.around.resolving import LookUp, Resolving, look_up
from diachunk.node.around.roster import How, Roster
from diachunk.node.around.talking import Talker
from diachunk.node.around.viewing import how_of, views
from diachunk.node.guard import is_near
from diachunk.node.model import Address
from diachunk.sources.secret import Secret
from diachunk.transfer.progress import Listener, silent

__all__ = ["Neighbourhood", "NodeView"]

_TICK_S = 1.0
_IDLE_TICK_S = 5.0
_AGAIN_S = 2.0
_LOOKING_S = 3.0
"""How long after the start somebody may still be expected to be found."""


class Neighbourhood:
    """The asking side of a node.

    Attributes:
        neighbours: nodes that answered, by address. Who is forgotten by the roster is forgotten here.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        wants: Wanting,
        secret: Secret | None,
        limits: Limits,
        *,
        named: Sequence[str] = (),
        discover: bool = False,
        share_port: int | None = None,
        shelf: Lending | None = None,
        speak_through: Address | None = None,
        allows: Callable[[str], bool] = is_near,
        look_up: LookUp = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        named: HOST[:PORT] or dns:NAME[:PORT].
        share_port: where this process answers others; None: it does not.
        shelf: where running sessions' partials are offered, if it does.
        speak_through: a `serve` on this store that answers in its place.
        allows: whether an address that others told us of may be called (P11, P14).

        Raises:
            UsageError: a name that is none.
        """
        self.identity = identity
        self.roster = roster
        self.wants = wants
        self.limits = limits
        self.shelf = shelf
        self.clock = clock
        self.talker = Talker(limits, secret)
        self.neighbours: dict[Address, Neighbour] = {}
        self.port = share_port if speak_through is None else speak_through.port
        self._allows = allows
        self._discover = discover
        self._announces_itself = share_port is not None and speak_through is None
        self._secret = secret is not None
        self._resolving = Resolving(named, roster, self.is_reached, look_up)
        self._greeting = Greeting(self, speak_through)
        self._questions = Questions(self)
        self._calling = Calling(self, self._questions.node, allows)
        self._joined: dict[Digest, Joined] = {}
        self._begun = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._discovery: object = None
        self._began_at = float("-inf")

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to look for others."""
        self._began_at = self.clock()
        self.roster.on_change = self._stir
        self.talker.start()
        self._resolving.start()
        self._spawn(self._calling.keep_calling(), "diachunk-dial")
        self._spawn(self._tick(), "diachunk-tick")
        self._spawn(self._greeting.keep_announcing(), "diachunk-announce")
        if self._discover:
            self._start_discovery()

    def _start_discovery(self) -> None:
        # Takes a tenth of a second to import: only where it is wanted.
        from diachunk.node.around.discovery import Discovery

        self._discovery = discovery = Discovery(
            self.identity.node,
            self.identity.store,
            port=self.port if self._announces_itself else None,
            browse=True,
            secret=self._secret,
            found=self._found,
            allows=self._allows,
        )
        discovery.start()
        self._end_discovery = discovery.close

    async def close(self) -> None:
        """Lets go of everything. Bounded in time."""
        self.roster.on_change = lambda: None
        for joined in self._joined.values():
            await joined.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._calling.close()
        await self._resolving.close()
        if self._discovery is not None:
            await self._end_discovery()
        await self.talker.close()

    def _spawn(self, what: object, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(what, name=name)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what others ask of it -----------------------------------------------------------------------------

    def join(self, shared: Shared, listener: Listener = silent) -> Joined:
        """The swarm of one manifest, or statement; the same one for the same."""
        joined = self._joined.get(shared.id)
        if joined is None:
            joined = self._joined[shared.id] = Joined(shared, self, listener)
            self._begun.set()
            self._greeting.soon()
        return joined

    async def ask_refs(
        self, name: str, revision: str | None = None, wait_s: float = _LOOKING_S
    ) -> list[tuple[Address, How, list[tuple[str, Digest]]]]:
        """What each node that can be reached says a name stands for; waits so long for those being looked for."""
        return await self._questions.refs(name, revision, wait_s)

    async def ask_manifest(
        self,
        manifest_id: Digest,
        accept: Callable[[bytes], object] | None = None,
        wait_s: float = _LOOKING_S,
    ) -> bytes | None:
        """The text of a manifest from whoever has it; None if nobody gives one.

        Args:
            accept: raises ManifestError for a text that is not what was asked for: then the next node is asked.
                Called on a thread.
        """
        return await self._questions.manifest(manifest_id, accept, wait_s)

    async def ask_stated(self, found_by: Digest) -> list[tuple[Address, How, list[Digest]]]:
        """The ids of the manifests of stated files that each node has which can be reached now (P20)."""
        return await self._questions.stated(found_by)

    def nodes(self) -> list[NodeView]:
        """Who is there, and who was named but is not."""
        return views(self.neighbours, self.roster, self._calling.troubles(), self._resolving.named)

    def named(self) -> list[NodeView]:
        return [view for view in self.nodes() if view.how in (How.NAMED.word, How.DNS.word)]

    async def look_again(self) -> None:
        """Asks every node anew what it is and holds; of who takes long, what it said before stands."""
        calls = [asyncio.ensure_future(self._calling.call(address)) for address in list(self.neighbours)]
        if not calls:
            return
        _, slow = await asyncio.wait(calls, timeout=_AGAIN_S)
        for call in slow:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def settle(self, wait_s: float) -> None:
        """Returns once every name was tried and nobody more is to be expected; after `wait_s` at the latest."""
        until = self.clock() + wait_s
        while self.clock() < until and self.is_looking():
            await asyncio.sleep(0.05)

    def is_looking(self) -> bool:
        """Whether somebody may be found any moment."""
        if self.clock() - self._began_at >= _LOOKING_S:
            return False
        return self._discover or not self._resolving.settled() or self._calling.has_untried

    def incomplete(self) -> list[str]:
        """Addresses of nodes that fetch what was fetched here and are not done."""
        return sorted({address for joined in self._joined.values() for address in joined.incomplete()})

    async def wait_for_incomplete(
        self, at_most_s: float, told: Callable[[Sequence[str]], None] = lambda addresses: None
    ) -> None:
        """The linger: returns once no node that we know of is incomplete. `told`: whom it waits for."""
        until = self.clock() + at_most_s
        last: list[str] = []
        while (left := self.incomplete()) and self.clock() < until:
            if left != last:
                told(left)
                last = left
            await asyncio.sleep(0.25)

    # --- `Around`: what a manifest's swarm asks ------------------------------------------------------------

    @property
    def me(self) -> str:
        return self._greeting.me

    def how(self, address: Address) -> How:
        return how_of(self.roster, address)

    def is_reached(self, address: Address) -> bool:
        neighbour = self.neighbours.get(address)
        return neighbour is not None and neighbour.reached

    def announce(self) -> None:
        self._greeting.soon()

    def lost(self, address: Address, trouble: str) -> None:
        neighbour = self.neighbours.get(address)
        if neighbour is not None and neighbour.reached:
            neighbour.reached, neighbour.trouble = False, trouble
            self._calling.lost(address, trouble)

    async def met(self, neighbour: Neighbour) -> None:
        """A node answered that did not before."""
        await self._greeting.greet(neighbour)
        for joined in self._joined.values():
            joined.tick()

    def learned(self, informant: Address, peers: Sequence[tuple[Address, float]], you: str = "") -> None:
        """What another node says of others."""
        self.roster.heard(informant)
        source = informant_of(informant)
        if not self._calling.dialling.hears(source):
            self.roster.forget_from(source)
            return
        for address, age_s in peers:
            if (address.host, address.port) == (you, self.port):
                continue
            # Whether it may be called takes ten times as long to say as whether it is known.
            known = self.roster.get(address) is not None
            if known or may_be_dialled(address, informant, self._allows):
                self.roster.note(address, How.EXCHANGE, informant=source, age_s=age_s)

    def _stir(self) -> None:
        """The roster changed: somebody may have to be called, or asked what it has."""
        self._calling.changed.set()
        for joined in self._joined.values():
            joined.stir()

    def _found(self, address: Address, store: str) -> None:
        """mDNS shows a node."""
        if store != self.identity.store and may_be_dialled(address, None, self._allows):
            self.roster.note(address, How.MDNS)

    # --- once a second -------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self._forget()
            for joined in self._joined.values():
                joined.tick()
            if self._joined:
                await asyncio.sleep(_TICK_S)
                continue
            try:
                async with asyncio.timeout(_IDLE_TICK_S):
                    await self._begun.wait()
            except TimeoutError:
                continue

    def _forget(self) -> None:
        self.roster.expire()
        for address in [each for each in self.neighbours if self.roster.get(each) is None]:
            del self.neighbours[address]
        self._calling.forget_unknown()
