"""What runs on a thread and tells of it, as something to await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diachunk.errors import Interrupted

Event = TypeVar("Event")
Result = TypeVar("Result")


class _End:
    """Nothing more will be told."""


async def from_thread(
    run: Callable[[Callable[[Event], None]], Result],
) -> AsyncGenerator[Event | Result, None]:
    """Yields what `run`, on a thread, tells its listener; last what it returns. Leaving the loop early has the listener
    raise Interrupted, and waits until `run` has ended with that.

    Raises:
        BaseException: what `run` raised.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | _End] = asyncio.Queue()
    left = threading.Event()

    def listen(event: Event) -> None:
        if left.is_set():
            raise Interrupted("stopped", hint="what is verified is kept")
        loop.call_soon_threadsafe(queue.put_nowait, event)

    def work() -> Result:
        try:
            return run(listen)
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, _End())

    # A thread of its own: those of the loop's default pool are few, and who waits for one would hear nothing.
    pool = ThreadPoolExecutor(1, "diachunk-events")
    task = loop.run_in_executor(pool, work)
    try:
        while not isinstance(event := await queue.get(), _End):
            yield event
        yield await task
    finally:
        left.set()
        await asyncio.wait({task})
        # Looked at, lest the loop complain: who left does not want to know how it ended.
        if not task.cancelled():
            task.exception()
        pool.shutdown(wait=False)
