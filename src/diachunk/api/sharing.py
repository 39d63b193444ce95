"""What a call shares with other machines while it runs, and asks of them. One for a whole set of fetches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from diachunk import values
from diachunk.config import Config
from diachunk.errors import DiachunkError
from diachunk.store.store import Store
from diachunk.transfer.progress import Event, Listener, Notice, silent

if TYPE_CHECKING:
    from pathlib import Path

    from diachunk.api.trust.naming import Ask
    from diachunk.digest import Digest
    from diachunk.manifest import Manifest
    from diachunk.manifest.statement import Statement
    from diachunk.node.node import Node
    from diachunk.node.settings import NodeSettings
    from diachunk.node.views import RefView
    from diachunk.transfer.company import Swarm

FIND_S = 2.0
"""How long to wait for machines to be found by mDNS, where somebody waits for the answer."""
_PORTS = 10
_NAMED_S = 5.0
_TOLD_MAX = 4


@dataclass(frozen=True, slots=True)
class Sociable:
    """How far a call goes towards other machines.

    Attributes:
        peers: HOST[:PORT] or dns:NAME[:PORT], besides the configured ones.
        share: give what is verified to others while it runs.
        discover: look for others on this network (mDNS).
        max_up_bps: cap on what is given, bytes a second.
        linger_s: how long to stay for machines that are not done yet; None: as configured.
        newest: also ask what a name should stand for now that stands for something here.
        ask: shows a person an id that only strangers on the network say a name stands for; None: nobody is there.
    """

    peers: tuple[str, ...] = ()
    share: bool = False
    discover: bool = False
    max_up_bps: int | None = None
    linger_s: float | None = None
    newest: bool = False
    ask: Ask | None = None

    def __bool__(self) -> bool:
        return bool(self.peers or self.share or self.discover)


class Sharing:
    """A node for the length of a `with` block, made when it is first needed. Nothing it does fails a fetch."""

    def __init__(self, config: Config, how: Sociable, listener: Listener = silent) -> None:
        """Args:
        listener: told what goes wrong, on the thread that makes the calls.
        """
        self.how = how
        self.config = config
        self._listener = listener
        self._node: Node | None = None
        self._beside: Node | None = None
        self._opened = False
        self._notices: deque[Event] = deque()
        self.trouble = ""

    @contextmanager
    def telling(self, listener: Listener) -> Iterator[None]:
        """In this block another one is told what goes wrong."""
        before, self._listener = self._listener, listener
        try:
            yield
            self._pass_on()
        finally:
            self._listener = before

    @property
    def linger_s(self) -> float:
        for each in (self.how.linger_s, self.config.linger_s):
            if each is not None:
                return each
        return self.config.limits.linger_s

    # --- the node ------------------------------------------------------------------------------------------

    def open(self) -> Node | None:
        """The node, with its port if it shares; None if there is to be no company, or none can be had."""
        if not self._opened:
            self._opened = True
            try:
                self._node = self._make(beside=False)
            except DiachunkError as error:
                self._complain(error.message)
        return self._node

    def look(self) -> Node | None:
        """The node as `open` gives it, from now on looking for others."""
        node = self.open()
        if node is not None:
            node.start(at_once=True)
        return node

    def _make(self, *, beside: bool) -> Node | None:
        how = self.how
        if not (how or self.config.peers):
            return None
        from diachunk.node.node import Node

        settings = node_settings(self.config, how)
        store, lower = Store.open(self.config.home), Store.open_lower(self.config.stores)
        node = Node(settings, store, lower, self._notices.append, beside=beside)
        try:
            node.open()
        except DiachunkError as error:
            if not settings.share:
                raise
            self._complain(error.message)
            unshared = replace(settings, share=False)
            node = Node(unshared, store, lower, self._notices.append, beside=beside)
            node.open()
        return node

    def hearing(self, listener: Listener) -> Listener:
        """A listener in front of another, which is told in between what the node says."""

        def listen(event: Event) -> None:
            while self._notices:
                listener(self._notices.popleft())
            listener(event)

        return listen

    def _pass_on(self) -> None:
        """Listeners are called on their own thread: what the node's said waits until then."""
        while self._notices:
            self._listener(self._notices.popleft())

    def _complain(self, text: str) -> None:
        self.trouble = f"cannot share: {text}"
        self._listener(Notice(self.trouble))

    @property
    def port(self) -> int | None:
        """Where others can ask this machine now, or the `serve` beside it; None where they cannot."""
        node = self._node
        if node is None:
            return None
        return node.speaks_through.port if node.speaks_through is not None else node.port

    @property
    def audience(self) -> str:
        """Who may ask, for people."""
        more = f" and {', '.join(self.config.allow)}" if self.config.allow else ""
        secret = " under the lab's secret" if self.config.token_file is not None else ""
        return f"this machine's networks{more}{secret}"

    @property
    def is_served(self) -> bool:
        """Whether a `serve` on this store does the sharing."""
        return self._node is not None and self._node.speaks_through is not None

    # --- what others know ----------------------------------------------------------------------------------

    @property
    def _wait_s(self) -> float:
        """How long others are still to be waited for, who may have been looked for already."""
        named = bool(self.how.peers or self.config.peers)
        wait_s = max(FIND_S if self.how.discover else 0.0, _NAMED_S if named else 0.0)
        up_since = None if self._node is None else self._node.up_since
        return wait_s if up_since is None else max(0.0, up_since + wait_s - time.monotonic())

    def refs(self, name: str, revision: str, statement: Statement | None = None) -> list[RefView]:
        """What other machines say that a name stands for, each with the manifest if it can be had; and what they have
        of the files that are stated, under whatever name.
        """
        node = self.look()
        found_by = None if statement is None else statement.found_by
        return node.ask_refs(name, revision, self._wait_s, found_by) if node is not None else []

    def manifest(self, manifest_id: Digest) -> Manifest | None:
        """A manifest by its id, from whichever machine has it."""
        node = self.look()
        return node.ask_manifest(manifest_id, self._wait_s) if node is not None else None

    def troubles(self) -> list[str]:
        """What is wrong with the machines that were named, a line each; also those that were reached and lack it."""
        node = self._node
        if node is None or self.trouble:
            return [self.trouble] if self.trouble else []
        named = [each for each in node.peers() if each.how in ("named", "dns")]
        return [f"peer {each.address}: {each.trouble or 'has none of it'}" for each in named[:_TOLD_MAX]]

    def unheard(self) -> list[str]:
        """Why machines that were named gave no answer: what they know may be known another time."""
        if self._node is None:
            return []
        return [each.trouble for each in self._node.peers() if each.how in ("named", "dns") and each.trouble]

    def tell(self, text: str) -> None:
        """Says something that a person should know."""
        self._listener(Notice(text))

    def swarm(self, manifest: Manifest) -> Swarm | None:
        """The other machines, for the sessions of one manifest."""
        node = self.open()
        return node.join(manifest) if node is not None else None

    def swarm_of(self, statement: Statement, here: Mapping[Digest, Path]) -> Swarm | None:
        """The other machines that draw the same, or drew it; None also for what is private, where no secret keeps it
        among those who may have it. `here`: files of it that are here already, by key.
        """
        node = self.open()
        if node is None or (statement.private and self.config.token_file is None):
            return None
        if node.speaks_through is not None:
            # A `serve` shows what is verified, and of this nothing is yet: it is shown by whoever fetches it.
            node = self._beside = self._beside or self._open_beside()
        return node.join(statement, here) if node is not None else None

    def _open_beside(self) -> Node | None:
        try:
            node = self._make(beside=True)
        except DiachunkError as error:
            self._complain(error.message)
            return None
        if node is not None and node.port is not None:
            self.tell(f"sharing what is not whole yet on port {node.port}")
        return node

    # --- the end -------------------------------------------------------------------------------------------

    def linger(self, tell: Callable[[int], None] = lambda count: None) -> None:
        """Stays until no machine that we know of is incomplete, for `linger_s` at most. `tell`: for how many."""
        self._pass_on()
        for node in (self._node, self._beside):
            if node is not None and self.linger_s > 0:
                node.linger(self.linger_s, tell)

    def close(self) -> None:
        """Stops sharing. Bounded in time."""
        for node in (self._node, self._beside):
            if node is not None:
                node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def sharing_or_new(
    given: Sharing | None, config: Config, how: Sociable, listener: Listener
) -> Iterator[Sharing | None]:
    """The caller's own, which is left open; else one for this block, if it is to have any company."""
    if given is not None or not (how or config.peers):
        yield given
        return
    with Sharing(config, how, listener) as made:
        yield made


def node_settings(config: Config, how: Sociable) -> NodeSettings:
    """What a node is to do, by the settings and by what was asked for.

    Raises:
        UsageError: a peer is none, or the secret's file holds none.
        TrustError: others can read the secret's file.
    """
    from diachunk.node.settings import NodeSettings
    from diachunk.sources.secret import Secret

    secret = None if config.token_file is None else Secret.load(config.token_file)
    return NodeSettings(
        share=how.share,
        discover=how.discover,
        ports=range(config.port, min(config.port + _PORTS, 65536)),
        peers=tuple(dict.fromkeys((*values.peers("--peer", list(how.peers)), *config.peers))),
        allow=config.allow,
        secret=secret,
        token_file=config.token_file,
        max_up_bps=how.max_up_bps or config.max_up_bps,
        limits=config.limits,
    )
