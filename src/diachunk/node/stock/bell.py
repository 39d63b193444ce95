"""Tells tasks of one loop that something changed. Nothing is queued: who comes late looks for himself."""

from __future__ import annotations

import asyncio
import contextlib


class Bell:
    """Rung and waited for on the loop's thread alone."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Returns at the next ring, True; or when the time is up, False."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await future
                    return True
            return False
        finally:
            self._waiting.discard(future)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)
