"""events: the same progress, asynchronously."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from diachunk.api.fetching import Snapshot, fetch
from diachunk.errors import Interrupted
from diachunk.transfer.progress import Event


@dataclass(frozen=True, slots=True)
class Fetched:
    """The last event: the fetch is done."""

    snapshot: Snapshot
    bytes: int = 0


async def events(target: str, **options: Any) -> AsyncGenerator[Event | Fetched, None]:
    """Fetches on a thread and yields what happens; the last event is Fetched.

    Leaving the loop early stops the fetch; what is verified is kept.

    Args:
        options: those of `fetch`, but for `progress`.

    Raises:
        DiachunkError: as fetch.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | Fetched | BaseException] = asyncio.Queue()
    left = threading.Event()

    def tell(event: Event | Fetched | BaseException) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)

    def listen(event: Event) -> None:
        if left.is_set():
            raise Interrupted("stopped", hint="what is verified is kept")
        tell(event)

    def run() -> None:
        try:
            tell(Fetched(fetch(target, progress=listen, **options)))
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to whoever awaits
            if not left.is_set():
                tell(error)

    task = loop.run_in_executor(None, functools.partial(run))
    try:
        while True:
            event = await queue.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Fetched):
                return
    finally:
        left.set()
        await asyncio.shield(task)
