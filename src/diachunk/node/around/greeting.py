"""Says that this node is here, and hears in return how others see it and whom they know: P9 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from diachunk.limits import Limits
from diachunk.node.around.answers import SMALL_BYTES_MAX, Malformed, dump, parse_others
from diachunk.node.around.neighbours import Identity, Neighbour, Wanting
from diachunk.node.around.talking import Talker, Unreached
from diachunk.node.model import Address, Want

_WANTS_MAX = 64
_AT_ONCE = 16
_LOOK_S = 1.0
_VOTES_MAX = 256


class Greets(Protocol):
    """The neighbourhood, as this sees it."""

    identity: Identity
    limits: Limits
    talker: Talker
    wants: Wanting
    port: int | None

    @property
    def neighbours(self) -> dict[Address, Neighbour]: ...
    def clock(self) -> float: ...
    def lost(self, address: Address, trouble: str) -> None: ...
    def learned(self, informant: Address, peers: Sequence[tuple[Address, float]], you: str = "") -> None: ...


class Greeting:
    """Announcements to everybody met, every 30 s, and at once when what is wanted changes."""

    def __init__(self, around: Greets, speak_through: Address | None = None) -> None:
        """`speak_through`: a `serve` on this store, told once a second what is wanted and taken here."""
        self._around = around
        self._speak_through = speak_through
        self._votes: dict[Address, str] = {}
        self._soon = asyncio.Event()
        self._said: tuple[tuple[object, ...], ...] = ()

    @property
    def me(self) -> str:
        """Our address as most others see it, of those that this machine has; "" if unknown, or we do not share."""
        if self._around.port is None or not self._votes:
            return ""
        counted = Counter(self._votes.values()).most_common()
        own = next((host for host, _ in counted if _is_ours(host)), counted[0][0])
        return str(Address(own, self._around.port))

    def soon(self) -> None:
        """There is something new to say."""
        self._soon.set()

    async def keep_announcing(self) -> None:
        while True:
            self._soon.clear()  # first: what is new from here on is said in the next round
            if self._speak_through is not None:
                await self._speak(self._speak_through)
            news = self._news()
            now = self._around.clock()
            period_s = self._around.limits.announce_s
            due = [
                each
                for each in self._around.neighbours.values()
                if each.reached and (news or now - each.announced_at >= period_s)
            ]
            for first in range(0, len(due), _AT_ONCE):
                await asyncio.gather(*(self.greet(each) for each in due[first : first + _AT_ONCE]))
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._soon.wait()
            except TimeoutError:
                continue

    def _news(self) -> bool:
        """Whether what is wanted here changed since it was last said to all."""
        said = tuple((want.manifest_id, want.components, want.feeds) for want in self._around.wants.all())
        changed, self._said = said != self._said, said
        return changed

    async def greet(self, neighbour: Neighbour) -> None:
        """Tells one node of us, and learns of others from it."""
        neighbour.announced_at = (
            self._around.clock() + random.uniform(-0.1, 0.1) * self._around.limits.announce_s
        )
        body = self._body(self._around.wants.all(), taking=False)
        try:
            await self._exchange(neighbour.address, body, count=True)
        except Unreached as error:
            if error.lies:
                neighbour.lie = error.detail
            self._around.lost(neighbour.address, error.detail)
        except Malformed as error:
            neighbour.lie = f"sent {error}"

    async def _speak(self, address: Address) -> None:
        try:
            await self._exchange(address, self._body(self._around.wants.all(), taking=True), count=False)
        except (Unreached, Malformed):
            return  # it is ending, or busy: said again in a second

    async def _exchange(self, address: Address, body: bytes, *, count: bool) -> None:
        reply = await self._around.talker.ask(address, "/v1/peers", body=body, limit_bytes=SMALL_BYTES_MAX)
        if reply.status == 401:
            raise Unreached(reply.refusal)
        if reply.status != 200:
            raise Unreached(f"status {reply.status}")
        others = parse_others(reply.body)
        if count and others.you:
            if len(self._votes) >= _VOTES_MAX:
                self._votes.pop(next(iter(self._votes)))
            self._votes[address] = others.you
        self._around.learned(address, others.peers, others.you)

    def _body(self, wants: Iterable[Want], *, taking: bool) -> bytes:
        said = []
        for want in list(wants)[:_WANTS_MAX]:
            entry: dict[str, object] = {
                "manifest": want.manifest_id.hex(),
                "components": list(want.components),
                "feeds": want.feeds,
            }
            if taking:
                entry["taking"] = [list(pair) for pair in want.taking]
            said.append(entry)
        identity = self._around.identity
        return dump(
            {"port": self._around.port, "node": identity.node, "store": identity.store, "wants": said}
        )


def _is_ours(host: str) -> bool:
    """Whether this machine has that address: only then can a socket be bound to it. Nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
