"""Calls that may hang in the kernel or in a library: a dead mount, a server that is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(threading.Thread, Generic[T]):
    """A call on a daemon thread: the process may end while it still hangs.

    Attributes:
        result: what it returned, once it has.
        error: what it raised.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        super().__init__(daemon=True, name=name)
        self._call = call
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error


def within(seconds: float, call: Callable[[], T], name: str = "diachunk-within") -> T:
    """Calls, and waits at most so long.

    Raises:
        TimeoutError: it has not returned; it goes on in the background.
    """
    thread = Aside(call, name)
    thread.start()
    thread.join(seconds)
    if thread.error is not None:
        raise thread.error
    if not thread.result:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return thread.result[0]
