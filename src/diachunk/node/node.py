"""A node as the rest of the program sees it: plain calls from any thread, each with an end. The node itself lives on
a loop of its own (life.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from diachunk.digest import Digest
from diachunk.errors import DiachunkError
from diachunk.manifest import Manifest
from diachunk.manifest.statement import Shared
from diachunk.node.boarding import Boarding
from diachunk.node.lifetime import Claim, Running, already_served, claim, running
from diachunk.node.ports import listen
from diachunk.node.settings import NodeSettings
from diachunk.node.thread import CALL_S, UP_S, NodeThread
from diachunk.node.views import Holding, PeerView, RefView
from diachunk.store.store import Store
from diachunk.transfer.progress import Listener, Notice, silent

if TYPE_CHECKING:
    from diachunk.node.life import Life
    from diachunk.transfer.company import Swarm

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
        self._store = store
        self._lower_stores = lower_stores
        self._listener = listener
        self._sockets: list[socket] = []
        self._claim: Claim | None = None
        self._thread = NodeThread(self._make_life, self._fail)
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
        self._thread.start(at_once=at_once)

    def close(self, grace_s: float = 0.0) -> None:
        """Ends within seconds, uploads under way after `grace_s` at most. Safe to call twice.

        Interrupted, it has still let go of the port and the store.
        """
        try:
            self._thread.close(grace_s)
        finally:
            self._let_go()

    def hurry(self) -> None:
        """Ends a `close` that waits for uploads. From a signal's handler as well."""
        self._thread.hurry()

    def wait_up(self, timeout_s: float = UP_S) -> bool:
        """Whether it answers by then."""
        return self._thread.wait_up(timeout_s)

    @property
    def up_since(self) -> float | None:
        """When it began to look for others (time.monotonic()); None: not yet."""
        return self._thread.up_since

    def _let_go(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.close()
        self._sockets = []
        if self._claim is not None:
            self._claim.release()

    def _make_life(self) -> Life:
        from diachunk.node.life import Life

        return Life(self.settings, self._store, self._lower_stores, self._sockets, self.speaks_through)

    def _fail(self, error: Exception) -> None:
        told = error.message if isinstance(error, DiachunkError) else f"{type(error).__name__}: {error}"
        self.failure = told
        _LOG.debug("the node failed", exc_info=error)
        if not self.settings.serves and not self._thread.ending:
            self._listener(Notice(f"no company of other machines: {told}"))

    # --- what it is for ------------------------------------------------------------------------------------

    def join(self, shared: Shared, here: Mapping[Digest, Path] | None = None) -> Swarm:
        """The other machines, for the sessions of one manifest, or statement. `here`: files of a statement that are
        here already, by key: they are offered, too.
        """
        self.start()
        return Boarding(
            lambda then: self._thread.post(
                lambda life: then(None if life is None else life.join(shared, self._listener, here))
            ),
            shared.id,
            self._thread.wake,
        )

    def ask_refs(
        self, name: str, revision: str, wait_s: float, found_by: Digest | None = None
    ) -> list[RefView]:
        """What those who are there say that a name stands for; waits so long for them to be found. `found_by`: also
        what they have of stated files, under whatever name (P20).
        """
        return self._thread.ask(
            lambda life: life.ask_refs(name, revision, wait_s, found_by), [], wait_s + CALL_S
        )

    def ask_manifest(self, manifest_id: Digest, wait_s: float) -> Manifest | None:
        """A manifest that hashes to its id, from whoever has it; None if nobody is found by then."""
        return self._thread.ask(lambda life: life.ask_manifest(manifest_id, wait_s), None, wait_s + CALL_S)

    def peers(self, wait_s: float = 0.0) -> list[PeerView]:
        """Who is there; waits so long for them to be found."""
        return self._thread.ask(lambda life: life.peers(wait_s), [], wait_s + CALL_S)

    @property
    def is_up(self) -> bool:
        """Whether it has come up, and has not ended."""
        return self._thread.is_up

    def is_alive(self, timeout_s: float = 5.0) -> bool:
        """Whether its loop answers."""
        return self._thread.ask(lambda life: life.given_bytes(), -1, timeout_s) >= 0

    def given_bytes(self) -> int:
        """What others got from here."""
        return self._thread.ask(lambda life: life.given_bytes(), 0)

    def holdings(self) -> list[Holding]:
        """What this node shows to others."""
        return self._thread.ask(lambda life: life.holdings(), [])

    def linger(self, at_most_s: float, tell: Callable[[int], None] = lambda count: None) -> None:
        """Stays until no machine that we know of is incomplete in what we have. `tell` hears of how many, when that
        changes; also of none, but for none at the beginning.
        """
        if self.port is None or not self._thread.was_started:
            return  # nothing can be had here, or the `serve` beside us stays anyway
        until, told = time.monotonic() + at_most_s, 0
        while self._thread.is_up:
            count = self._thread.ask(lambda life: life.incomplete(), 0, _ANSWERS_S)
            if count != told:
                tell(count)
                told = count
            left_s = until - time.monotonic()
            if not count or left_s <= 0:
                return
            time.sleep(min(_LINGER_LOOK_S, left_s))
