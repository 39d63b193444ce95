"""Uploads of one node: turns between them, and a cap over all. P17 of docs/protocol.md; the policy is in turns.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from diachunk.limits import KiB, Limits, MiB
from diachunk.node.serving.turns import Bucket, Stage, Turn, Turns

PIECE_BYTES = MiB
ALONE_BYTES = 4 * MiB
_PATIENCE = 0.8
"""Of `stall_s`: whoever waits longer for a first byte takes us for dead."""


class Full(Exception):
    """No slot, and no place to wait for one. `retry_after_s`: whole seconds."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("all upload slots are taken")


class Uploads:
    """Used on the loop's thread alone.

    Attributes:
        turns: who is active, who waits.
        refused: how many were told to come again.
        sent_bytes: of all uploads.
    """

    def __init__(
        self,
        slots: int,
        max_up_bps: int | None,
        limits: Limits,
        clock: Callable[[], float] | None = None,
    ) -> None:
        clock = clock or time.monotonic
        self.turns = Turns(slots, clock)
        self.refused = 0
        self.sent_bytes = 0
        self.max_up_bps = max_up_bps
        self._limits = limits
        self._clock = clock
        self._bucket: Bucket | None = None
        self._granted: dict[Turn, asyncio.Future[None]] = {}

    @property
    def piece_bytes(self) -> int:
        """How much to send at once: more while nobody waits, an eighth of a second's worth under a cap."""
        if self.max_up_bps is None:
            return PIECE_BYTES if self.turns.waiting else ALONE_BYTES
        return max(4 * KiB, min(PIECE_BYTES, self.max_up_bps // 8))

    async def begin(self, address: str) -> Upload:
        """Waits for a slot.

        Raises:
            Full: there is none to be had.
        """
        turn = self.turns.ask(address)
        if turn is None:
            raise self._full()
        self._grant()
        upload = Upload(self, turn)
        if turn.stage is Stage.ACTIVE:
            return upload
        try:
            async with asyncio.timeout(self._limits.stall_s * _PATIENCE):
                await self._wait(turn)
        except TimeoutError:
            self._end(turn)
            raise self._full() from None
        except BaseException:
            self._end(turn)
            raise
        return upload

    def _full(self) -> Full:
        self.refused += 1
        return Full(1 + self.turns.waiting // 64)

    async def _wait(self, turn: Turn) -> None:
        future = self._granted[turn] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            self._granted.pop(turn, None)

    def _grant(self) -> None:
        for turn in self.turns.grant():
            future = self._granted.get(turn)
            if future is not None and not future.done():
                future.set_result(None)

    def _end(self, turn: Turn) -> None:
        self.turns.end(turn)
        self._grant()

    async def _pay(self, size_bytes: int, rate_bps: int) -> None:
        if self._bucket is None:
            self._bucket = Bucket(rate_bps, self._clock)
        await asyncio.sleep(self._bucket.take(size_bytes))


class Upload:
    """One upload that has had a slot. Leaving the `with` block ends it."""

    def __init__(self, uploads: Uploads, turn: Turn) -> None:
        self._uploads = uploads
        self._turn = turn

    @property
    def address(self) -> str:
        return self._turn.address

    async def ready(self, size_bytes: int) -> None:
        """Waits until so much may be sent: for a slot, if this one has none or had its share, and for the cap."""
        uploads, turn = self._uploads, self._turn
        if turn.stage is not Stage.ACTIVE or uploads.turns.is_up(turn):
            uploads.turns.rejoin(turn)
            uploads._grant()
            if turn.stage is not Stage.ACTIVE:
                await uploads._wait(turn)
        if uploads.max_up_bps is not None:
            await uploads._pay(size_bytes, uploads.max_up_bps)

    def sent(self, size_bytes: int) -> None:
        self._uploads.sent_bytes += size_bytes
        self._uploads.turns.sent(self._turn, size_bytes)

    def stands(self) -> None:
        """Its reader does not read: the slot goes to others."""
        self._uploads.turns.park(self._turn)
        self._uploads._grant()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploads._end(self._turn)
