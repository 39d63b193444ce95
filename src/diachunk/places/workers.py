"""Reads several files at once, and stops soon when somebody wants it to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

Teller: TypeAlias = Callable[[str, int], None]
"""Told a component and the bytes read since the last call; from any thread."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Stopped(Exception):
    """Nobody waits for the result any more. Never leaves this module's threads."""


def at_once(work: Callable[[_Item, Teller], _Result], items: Sequence[_Item], tell: Teller) -> list[_Result]:
    """Calls `work` for each item, on all cores; the results in order.

    What `work` tells goes on to `tell`; when this was interrupted, or one of them failed, telling ends the others.

    Raises:
        Exception: what the first of them raised.
    """
    stopping = threading.Event()

    def telling(component: str, size_bytes: int) -> None:
        if stopping.is_set():
            raise Stopped
        tell(component, size_bytes)

    with ThreadPoolExecutor(max(1, min(len(items), os.cpu_count() or 2)), "diachunk-hash") as pool:
        try:
            # Also what is interrupted while it starts a thread: that one would not even be known to the pool.
            jobs = [pool.submit(work, item, telling) for item in items]
            return [job.result() for job in jobs]
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
