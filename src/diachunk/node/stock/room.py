"""How full the store's disk is, for whoever watches over it. P10 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from diachunk.errors import StoreError
from diachunk.store.store import Store
from diachunk.store.usage import disk_bytes

_FRESH_S = 5.0
_STALE_S = 60.0
_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that the store's own files take, and that anybody may still write on its file system."""

    store_bytes: int
    free_bytes: int


class Room:
    """Used on the node's loop. Looks on a thread: a disk that went away may not answer, and nobody waits for that."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._found: tuple[float, Usage | None] = (-_STALE_S, None)
        self._looking: asyncio.Future[None] | None = None

    @property
    def usage(self) -> Usage | None:
        """As of the last look; None where the store is not there, or its disk gave no answer of late."""
        at, found = self._found
        return found if self._clock() - at < _STALE_S else None

    async def look(self) -> None:
        """Looks anew unless that was just done. Returns in two seconds, whatever the disk does."""
        if self._clock() - self._found[0] < _FRESH_S:
            return
        loop = asyncio.get_running_loop()
        if self._looking is None:
            self._looking = loop.create_future()
            # A daemon: one that hangs in the kernel must not keep the process from its end.
            threading.Thread(target=self._look, args=(loop,), name="diachunk-room", daemon=True).start()
        await asyncio.wait({self._looking}, timeout=_WAIT_S)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        usage = None
        try:
            with contextlib.suppress(StoreError):
                if self._store.layout.is_there():
                    usage = Usage(disk_bytes(self._store), self._store.layout.free_bytes())
        finally:  # whatever it was, the next one who asks has to be able to look again
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._take, usage)

    def _take(self, usage: Usage | None) -> None:
        self._found = (self._clock(), usage)
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.set_result(None)
