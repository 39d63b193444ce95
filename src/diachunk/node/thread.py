"""The thread that a node's loop runs on: it comes up late, ends in time, and is asked from any other thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from diachunk.errors import DiachunkError

if TYPE_CHECKING:
    from diachunk.node.life import Life

T = TypeVar("T")
START_DELAY_S = 0.5
"""How long a node waits for the first lane to be busy: its libraries take 0.3 s of the processor to load."""
UP_S = 20.0
CLOSE_S = 5.0
CALL_S = 30.0
_LOG = logging.getLogger("diachunk.node")


class NodeThread:
    """Calls into a `Life` on its loop; each has an end, and none raises what goes wrong there.

    Attributes:
        up_since: when it came up (time.monotonic()); None: not yet.
    """

    def __init__(self, make: Callable[[], Life], failed: Callable[[Exception], None]) -> None:
        """Args:
        make: makes the node's life, on the loop.
        failed: told, on the thread, what ended it.
        """
        self.up_since: float | None = None
        self._make = make
        self._failed = failed
        self._wake = threading.Event()
        self._up = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._waiting: list[Callable[[Life | None], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: Life | None = None
        self._core: tuple[Life, asyncio.AbstractEventLoop] | None = None
        self._stop: asyncio.Event | None = None
        self._closed = False
        self.ending = False

    # --- life ----------------------------------------------------------------------------------------------

    @property
    def was_started(self) -> bool:
        return self._thread is not None

    @property
    def is_up(self) -> bool:
        """Whether it has come up, and has not ended."""
        return self._life is not None

    def start(self, *, at_once: bool = False) -> None:
        """At once, or when somebody needs it, or half a second from now."""
        if at_once:
            self._wake.set()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._live, name="diachunk-node", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Somebody needs it now."""
        self._wake.set()

    def wait_up(self, timeout_s: float = UP_S) -> bool:
        """Whether it answers by then."""
        self._wake.set()
        return self._up.wait(timeout_s) and self._life is not None

    def close(self, grace_s: float = 0.0) -> None:
        """Ends within seconds, uploads under way after `grace_s` at most. Safe to call twice."""
        self._closed = self.ending = True
        self._wake.set()
        self._on_loop(lambda: self._begin_end(grace_s))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S + grace_s)

    def hurry(self) -> None:
        """Ends a `close` that waits for uploads. From a signal's handler as well."""
        self._on_loop(lambda: self._begin_end(0.0))

    def _live(self) -> None:
        self._wake.wait(START_DELAY_S)
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - whatever it is, the fetch goes on without company
            self._failed(error)
        finally:
            self._come_up(None)

    async def _main(self) -> None:
        if self._closed:
            return
        self._stop = asyncio.Event()
        life = self._make()
        loop = asyncio.get_running_loop()
        self._core = life, loop
        try:
            await life.start()
            self._come_up(life, loop)
            if self.ending:
                self._stop.set()
            await self._stop.wait()
        finally:
            self._come_up(None)
            await life.close()
            self._core = None

    def _begin_end(self, grace_s: float) -> None:
        if self._core is not None:
            self._core[0].grace_s = grace_s
        if self._stop is not None:
            self._stop.set()

    def _come_up(self, life: Life | None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        with self._lock:
            self._life, self._loop = life, loop
            waiting, self._waiting = self._waiting, []
            if life is None:
                self._closed = True
            else:
                self.up_since = time.monotonic()
        self._up.set()
        for each in waiting:
            each(life)

    # --- calls -----------------------------------------------------------------------------------------------

    def post(self, what: Callable[[Life | None], None]) -> None:
        """Runs it on the loop's thread once the node is up; with None, on any, if it never will be."""
        with self._lock:
            life, loop = self._life, self._loop
            if life is None and not self._closed:
                self._waiting.append(what)
                return
        if life is None or loop is None:
            what(None)
            return
        try:
            loop.call_soon_threadsafe(what, life)
        except RuntimeError:
            what(None)

    def _on_loop(self, what: Callable[[], None]) -> None:
        core = self._core
        if core is not None:
            with suppress(RuntimeError):
                core[1].call_soon_threadsafe(what)

    def ask(
        self, question: Callable[[Life], Coroutine[Any, Any, T]], otherwise: T, timeout_s: float = CALL_S
    ) -> T:
        """The answer, or `otherwise` where there is none in time."""
        self.start(at_once=True)
        if not self.wait_up():
            return otherwise
        with self._lock:
            life, loop = self._life, self._loop
        if life is None or loop is None:
            return otherwise
        asked = question(life)
        try:
            future: Future[T] = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError:
            asked.close()
            return otherwise
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            return otherwise
        except DiachunkError as error:
            _LOG.debug("asking other machines failed", exc_info=error)
            return otherwise
        finally:
            future.cancel()
