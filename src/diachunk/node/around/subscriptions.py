"""Listens to what one other node has of one manifest, for as long as it is there. P5 and P6 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.node.around.answers import HaveAnswer, Malformed, dump, have_bytes_max, parse_bits, parse_have
from diachunk.node.around.neighbours import Neighbour
from diachunk.node.around.talking import Reply, Talker, Unreached

DIGESTS_ASKED_MAX = 8192
"""In one request (P6)."""
_REQUESTS_MAX = 4
_LOG = logging.getLogger("diachunk.node")
_ASK_AGAIN_S = 60.0
_LIES_MAX = 3
_BACKOFF_MAX_S = 8.0
_BUSY_MAX_S = 30.0
_FOLLOWS_MAX_S = 20.0
_FOLLOWS_TIMES = 20
"""Listens for so many intervals to one answer: the interval follows the number of machines, which may change."""


class Hears(Protocol):
    """Who is told of news. On the loop."""

    def news(self, one: Subscription, gained: Sequence[int] | None) -> None:
        """Something is new: `gained`, or everything if None."""
        ...

    def silent(self, one: Subscription) -> None:
        """It does not answer."""
        ...

    def wanted(self) -> Sequence[tuple[int, Digest]]:
        """(number, digest) of what is missing, for nodes that do not know the manifest; () while nothing is."""
        ...


class Subscription:
    """One other node and one manifest.

    Attributes:
        has: the packed bitmap of what it said it has; None until it said something, and while it is silent.
        wants, feeds, taking: as P5 has them.
        by_chunks: it does not know the manifest: what it has it was asked for one by one; of a statement, nothing.
        ended: it was caught lying too often, and is not asked any more.
    """

    def __init__(
        self,
        neighbour: Neighbour,
        manifest_id: Digest,
        bits: int,
        talker: Talker,
        limits: Limits,
        hears: Hears,
        interval_s: Callable[[], float],
        *,
        stated: bool = False,
    ) -> None:
        """`stated`: it is no manifest but a statement, of whose pieces nobody else can have any."""
        self.neighbour = neighbour
        self.address = neighbour.address
        self.has: bytearray | None = None
        self.wants: tuple[str, ...] | None = None
        self.feeds = False
        self.taking: dict[int, int] = {}
        self.by_chunks = False
        self.ended = False
        self.failures = 0
        self.since_s = 0.0
        self._target = f"/v1/manifests/{manifest_id.hex()}/have"
        self._bits = bits
        self._talker = talker
        self._limits = limits
        self._hears = hears
        self._stated = stated
        self._interval_s = interval_s
        self._epoch = ""
        self._version = 0
        self._lies = 0
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.since_s = loop.time()
        self._task = loop.create_task(self._follow(), name=f"diachunk-have-{self.address}")

    def stop(self) -> asyncio.Task[None] | None:
        if self._task is not None:
            self._task.cancel()
        return self._task

    def poke(self) -> None:
        """It may know the manifest by now, or be back: asked again at once, if it is not being asked anyway."""
        self._poked.set()

    @property
    def complete(self) -> bool:
        return self.has is not None and int.from_bytes(self.has, "little").bit_count() == self._bits

    # --- the loop ------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.ended:
            began_at = loop.time()
            try:
                pause_s = await self._once()
            except Unreached as trouble:
                pause_s = self._failed(trouble)
            except Malformed as error:
                pause_s = self._lied(f"sent {error}")
            except Exception:  # noqa: BLE001 - a fault of ours must not end the task: nobody would hear of that machine again
                _LOG.exception("listening to %s failed", self.address)
                pause_s = self._failed(Unreached("not understood here"))
            await self._pause(
                pause_s - (loop.time() - began_at) if pause_s <= self._interval_s() else pause_s
            )

    async def _pause(self, seconds: float) -> None:
        self._poked.clear()
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._poked.wait()
            except TimeoutError:
                return

    async def _once(self) -> float:
        """One question. Returns how long from its beginning the next one may come."""
        every_s = self._interval_s()
        wait_s = min(self._limits.have_wait_s, _FOLLOWS_MAX_S, _FOLLOWS_TIMES * every_s)
        query = f"?follow={wait_s:g}&every={every_s:g}"
        if self._epoch:
            query += f"&since={self._epoch}:{self._version}&wait={wait_s:g}"
        reply = await self._talker.ask(
            self.address,
            self._target + query,
            limit_bytes=have_bytes_max(self._bits),
            wait_s=wait_s,
            take=self._hear,
        )
        if reply.status == 404:
            self._epoch = ""
            return await self._ask_for_digests()
        if reply.status == 503:
            self._silence()
            return min(_BUSY_MAX_S, max(1.0, reply.retry_after_s)) * random.uniform(1.0, 1.5)
        _check(reply)
        if not reply.in_lines:  # a node that does not know `follow`
            self._hear(reply.body)
        return self._interval_s()

    def _hear(self, text: bytes) -> None:
        self._take(parse_have(text, self._bits, may_gain=bool(self._epoch)))

    def _take(self, answer: HaveAnswer) -> None:
        if answer.full is None and (answer.epoch != self._epoch or self.has is None):
            raise Malformed("news of a bitmap that it never sent")
        self._epoch, self._version = answer.epoch, answer.version
        self.wants, self.feeds, self.taking = answer.wants, answer.feeds, answer.taking
        self.failures, self.by_chunks = 0, False
        self._alive()
        if answer.full is not None:
            before, self.has = self.has, bytearray(answer.full)
            self._hears.news(self, () if before == self.has else None)
            return
        gained = answer.gained or ()
        has = self.has
        if has is not None:
            for number in gained:
                has[number >> 3] |= 1 << (number & 7)
        self._hears.news(self, gained)

    async def _ask_for_digests(self) -> float:
        """It does not know the manifest, but may have chunks of it: of other revisions, say."""
        self.wants, self.feeds, self.taking = None, False, {}
        if self._stated:
            return self._knows(Bitmap(self._bits))
        wanted = self._hears.wanted()
        if not wanted:
            self._silence()
            return 1.0
        has = Bitmap(self._bits)
        for first in range(0, min(len(wanted), DIGESTS_ASKED_MAX * _REQUESTS_MAX), DIGESTS_ASKED_MAX):
            part = wanted[first : first + DIGESTS_ASKED_MAX]
            body = dump({"digests": [digest.hex() for _, digest in part]})
            reply = await self._talker.ask(
                self.address, "/v1/have", body=body, limit_bytes=have_bytes_max(len(part))
            )
            _check(reply)
            for index in Bitmap.from_bytes(parse_bits(reply.body, len(part)), len(part)):
                has.add(part[index][0])
        return self._knows(has)

    def _knows(self, has: Bitmap) -> float:
        self.failures = 0
        self._alive()
        self.by_chunks, self.has = True, bytearray(has.to_bytes())
        self._hears.news(self, None)
        return _ASK_AGAIN_S * random.uniform(0.75, 1.25)

    # --- when it goes wrong --------------------------------------------------------------------------------

    def _alive(self) -> None:
        self.neighbour.reached, self.neighbour.trouble = True, ""

    def _failed(self, trouble: Unreached) -> float:
        if trouble.lies:
            return self._lied(trouble.detail)
        self.failures += 1
        self.neighbour.trouble = trouble.detail
        self._silence()
        ceiling = min(self._limits.backoff_first_s * 2 ** min(self.failures - 1, 16), _BACKOFF_MAX_S)
        return float(ceiling * random.uniform(0.5, 1.0))

    def _lied(self, what: str) -> float:
        self._lies += 1
        self.neighbour.lie = what
        self.ended = self._lies >= _LIES_MAX
        self._epoch = ""
        self._silence()
        return float(self._limits.backoff_first_s * 2**self._lies)

    def _silence(self) -> None:
        was_there = self.has is not None
        self.has = None
        self._epoch = ""
        self.taking = {}
        if was_there or self.failures == 1 or self.ended:
            self._hears.silent(self)


def _check(reply: Reply) -> None:
    if reply.status == 401:
        raise Unreached(reply.refusal)
    if reply.status != 200:
        raise Unreached(f"status {reply.status}")
