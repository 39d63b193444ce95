"""A node as the rest of the program sees it: plain calls from any thread, each with an end. The node itself lives on
a loop of its own (life.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, TypeVar

from diachunk.digest import Digest
from diachunk.errors import DiachunkError
from diachunk.manifest import Manifest
from diachunk.manifest.statement import Shared
from diachunk.node.boarding import Boarding
from diachunk.node.lifetime import Claim, Running, already_served, claim, running
from diachunk.node.ports import listen
from diachunk.node.settings import NodeSettings
from diachunk.node.views import Holding, PeerView, RefView
from diachunk.store.store import Store
from diachunk.transfer.progress import Listener, Notice, silent

if TYPE_CHECKING:
    from diachunk.node.life import Life
    from diachunk.transfer.company import Swarm

T = TypeVar("T")
START_DELAY_S = 0.5
"""How long a node waits for the first lane to be busy: its libraries take 0.3 s of the processor to load."""
UP_S = 20.0
CLOSE_S = 5.0
_CALL_S = 30.0
_LINGER_LOOK_S = 0.25
_STARTING_S = 2.0
_ANSWERS_S = 5.0
_LOG = logging.getLogger("diachunk.node")


class Node:
    """One process's part in the swarm. Nothing that goes wrong in it fails whoever it works for.

    Args:
        listener: told, as a Notice, if it cannot do its part.
        beside: it has a port of its own also where a `serve` shares this store.

    Attributes:
        port: where it listens; None where it does not share, or a `serve` on this store does it.
        speaks_through: that `serve`, if there is one.
        up_since: when it began to look for others (time.monotonic()); None: not yet.
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        lower_stores: Sequence[Store] = (),
        listener: Listener = silent,
        *,
        beside: bool = False,
    ) -> None:
        self.settings = settings
        self._beside = beside
        self.port: int | None = None
        self.speaks_through: Running | None = None
        self.up_since: float | None = None
        self._store = store
        self._lower_stores = lower_stores
        self._listener = listener
        self._sockets: list[socket] = []
        self._claim: Claim | None = None
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
        self._ending = False
        self.failure = ""

    # --- life ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes the store's claim or finds who has it, and the port. Loads nothing yet; connections queue up.

        Raises:
            StoreError: it is to serve, and the store is served already.
            PortTaken, UsageError: it cannot listen there.
        """
        layout = self._store.layout
        if self.settings.serves:
            self._claim = claim(layout)
            if self._claim is None:
                raise already_served(layout)
        elif not self._beside:
            other = running(layout, _STARTING_S)
            self.speaks_through = other if other is not None and other.port else None
        try:
            if self.settings.share and self.speaks_through is None:
                self._sockets = listen(self.settings.host, self.settings.ports)
                self.port = self._sockets[0].getsockname()[1]
                if self._claim is not None:
                    self._claim.tell(self.port, self.settings.node)
        except BaseException:
            self._let_go()
            raise

    def start(self, *, at_once: bool = False) -> None:
        """Starts the loop's thread; at once, or when a session begins, or half a second from now."""
        if at_once:
            self._wake.set()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._live, name="diachunk-node", daemon=True)
            self._thread.start()

    def close(self, grace_s: float = 0.0) -> None:
        """Ends within seconds, uploads under way after `grace_s` at most. Safe to call twice.

        Interrupted, it has still let go of the port and the store.
        """
        self._closed = self._ending = True
        self._wake.set()
        try:
            self._on_loop(lambda: self._begin_end(grace_s))
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(CLOSE_S + grace_s)
        finally:
            self._let_go()

    def hurry(self) -> None:
        """Ends a `close` that waits for uploads. From a signal's handler as well."""
        self._on_loop(lambda: self._begin_end(0.0))

    def wake(self) -> None:
        """Somebody needs it now."""
        self._wake.set()

    def wait_up(self, timeout_s: float = UP_S) -> bool:
        """Whether it answers by then."""
        self._wake.set()
        return self._up.wait(timeout_s) and self._life is not None

    def _let_go(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.close()
        self._sockets = []
        if self._claim is not None:
            self._claim.release()

    def _live(self) -> None:
        self._wake.wait(START_DELAY_S)
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - whatever it is, the fetch goes on without company
            self._fail(error)
        finally:
            self._come_up(None)

    async def _main(self) -> None:
        from diachunk.node.life import Life

        if self._closed:
            return
        self._stop = asyncio.Event()
        life = Life(self.settings, self._store, self._lower_stores, self._sockets, self.speaks_through)
        loop = asyncio.get_running_loop()
        self._core = life, loop
        try:
            await life.start()
            self._come_up(life, loop)
            if self._ending:
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

    def _fail(self, error: Exception) -> None:
        told = error.message if isinstance(error, DiachunkError) else f"{type(error).__name__}: {error}"
        self.failure = told
        _LOG.debug("the node failed", exc_info=error)
        if not self.settings.serves and not self._ending:
            self._listener(Notice(f"no company of other machines: {told}"))

    # --- calls across threads ------------------------------------------------------------------------------

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

    def _ask(
        self, question: Callable[[Life], Coroutine[Any, Any, T]], otherwise: T, timeout_s: float = _CALL_S
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

    # --- what it is for ------------------------------------------------------------------------------------

    def join(self, shared: Shared, here: Mapping[Digest, Path] | None = None) -> Swarm:
        """The other machines, for the sessions of one manifest, or statement. `here`: files of a statement that are
        here already, by key: they are offered, too.
        """
        self.start()
        return Boarding(
            lambda then: self.post(
                lambda life: then(None if life is None else life.join(shared, self._listener, here))
            ),
            shared.id,
            self.wake,
        )

    def ask_refs(
        self, name: str, revision: str, wait_s: float, found_by: Digest | None = None
    ) -> list[RefView]:
        """What those who are there say that a name stands for; waits so long for them to be found. `found_by`: also
        what they have of stated files, under whatever name (P20).
        """
        return self._ask(lambda life: life.ask_refs(name, revision, wait_s, found_by), [], wait_s + _CALL_S)

    def ask_manifest(self, manifest_id: Digest, wait_s: float) -> Manifest | None:
        """A manifest that hashes to its id, from whoever has it; None if nobody is found by then."""
        return self._ask(lambda life: life.ask_manifest(manifest_id, wait_s), None, wait_s + _CALL_S)

    def peers(self, wait_s: float = 0.0) -> list[PeerView]:
        """Who is there; waits so long for them to be found."""
        return self._ask(lambda life: life.peers(wait_s), [], wait_s + _CALL_S)

    @property
    def is_up(self) -> bool:
        """Whether it has come up, and has not ended."""
        return self._life is not None

    def is_alive(self, timeout_s: float = 5.0) -> bool:
        """Whether its loop answers."""
        return self._ask(lambda life: life.given_bytes(), -1, timeout_s) >= 0

    def given_bytes(self) -> int:
        """What others got from here."""
        return self._ask(lambda life: life.given_bytes(), 0)

    def holdings(self) -> list[Holding]:
        """What this node shows to others."""
        return self._ask(lambda life: life.holdings(), [])

    def linger(self, at_most_s: float, tell: Callable[[int], None] = lambda count: None) -> None:
        """Stays until no machine that we know of is incomplete in what we have. `tell` hears of how many, when that
        changes; also of none, but for none at the beginning.
        """
        if self.port is None or self._thread is None:
            return  # nothing can be had here, or the `serve` beside us stays anyway
        until, told = time.monotonic() + at_most_s, 0
        while self._life is not None:
            count = self._ask(lambda life: life.incomplete(), 0, _ANSWERS_S)
            if count != told:
                tell(count)
                told = count
            left_s = until - time.monotonic()
            if not count or left_s <= 0:
                return
            time.sleep(min(_LINGER_LOOK_S, left_s))
