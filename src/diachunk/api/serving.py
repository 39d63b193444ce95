"""serve and peers: this machine's checkpoints for the others of its network, and who those are."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from diachunk import values
from diachunk.api.context import Context
from diachunk.api.several import several
from diachunk.api.sharing import FIND_S, Sociable, node_settings
from diachunk.config import Config
from diachunk.errors import DiachunkError, UsageError
from diachunk.node.node import Node
from diachunk.node.ports import PortTaken, shown_only_here
from diachunk.node.settings import NodeSettings
from diachunk.node.thread import UP_S
from diachunk.node.views import Holding, PeerView

GRACE_S = 5.0
"""How long uploads under way may take to end when a `serve` stops."""
_EVERYBODY_BITS = 3
"""A network of so few fixed bits is as good as everybody."""


class Serving:
    """A running `serve`. Ends when it is closed, or its `with` block does.

    Attributes:
        port: where it listens.
    """

    def __init__(self, context: Context, node: Node) -> None:
        self._context = context
        self._node = node
        self._over = threading.Event()
        self.port = node.port or 0

    @property
    def settings(self) -> NodeSettings:
        return self._node.settings

    @property
    def context(self) -> Context:
        return self._context

    @property
    def failure(self) -> str:
        """Why it ended by itself; "" while it lives."""
        return self._node.failure

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._node.is_up

    def answers(self, timeout_s: float = 5.0) -> bool:
        """Whether it does, and does not hang."""
        return self._node.is_alive(timeout_s)

    def given_bytes(self) -> int:
        """What others got from here."""
        return self._node.given_bytes()

    def holdings(self) -> list[Holding]:
        """What it shares, those used last first."""
        return self._node.holdings()

    def peers(self) -> list[PeerView]:
        """Who else is there."""
        return self._node.peers()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns True once `close` or `stop` was called, False when the time is up."""
        return self._over.wait(timeout_s)

    def stop(self) -> None:
        """Ends `wait`, on whichever thread; may be called by a signal's handler."""
        self._over.set()

    def hurry(self) -> None:
        """Ends a `close` that still waits for uploads."""
        self._node.hurry()

    def close(self, grace_s: float = GRACE_S) -> None:
        """Lets uploads under way end, for so long at most, and stops."""
        self._over.set()
        self._node.close(grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0.0 if kind is not None else GRACE_S)


def serve(
    *,
    host: str = "",
    port: int | None = None,
    peers: Iterable[str] = (),
    allow: Iterable[str] = (),
    max_up_bps: int | None = None,
    discover: bool = True,
    home: str | os.PathLike[str] | None = None,
    settings: Config | None = None,
) -> Serving:
    """Shares what the store has, in the background, until the returned object is closed:

        with diachunk.serve() as serving:
            serving.wait()

    Args:
        host: listen on this address of this machine alone.
        port: by default as configured, 8420; 0: any that is free.
        peers: machines to know from the beginning: HOST[:PORT], or dns:NAME[:PORT].
        allow: networks that may ask, besides this machine's own and the private ones: "192.0.2.0/24".
        max_up_bps: cap on all that is given, bytes a second.
        discover: look for others, and be found, by mDNS.
        home: the store, in place of the configured one.
        settings: in place of what the configuration files and the environment say.

    Raises:
        UsageError: an argument or setting is wrong, or the port is taken.
        StoreError: the store is served already, or cannot be used.
        TrustError: others can read the file with the lab's secret.
    """
    context = Context.make(home, settings)
    config = context.config
    how = Sociable(several(peers), share=True, discover=discover, max_up_bps=max_up_bps)
    wanted = config.port if port is None else port
    if not 0 <= wanted < 65536:
        raise UsageError(f"port {wanted}: a port is wanted, 1 to 65535")
    node = Node(
        replace(
            node_settings(config, how),
            host=host,
            ports=(wanted,),
            allow=(*config.allow, *values.networks("--allow", list(several(allow)))),
            serves=True,
        ),
        context.store,
        context.lower_stores,
    )
    try:
        node.open()
    except PortTaken as error:
        raise _said_by_whom(error) from error
    node.start(at_once=True)
    try:
        if not node.wait_up(UP_S):
            raise DiachunkError(f"cannot serve: {node.failure or 'it did not start in time'}")
    except BaseException:
        node.close()
        raise
    return Serving(context, node)


def peers(
    peers: Iterable[str] = (),
    *,
    discover: bool = True,
    wait_s: float = FIND_S,
    home: str | os.PathLike[str] | None = None,
    settings: Config | None = None,
) -> list[PeerView]:
    """Who is there: machines that run diachunk, and what they hold.

    Args:
        peers: ask these as well: HOST[:PORT], or dns:NAME[:PORT].
        discover: look for others on this network (mDNS).
        wait_s: how long to wait for them to be found.

    Raises:
        UsageError: a peer is none.
        TrustError: others can read the file with the lab's secret.
    """
    context = Context.make(home, settings)
    how = Sociable(several(peers), discover=discover)
    node = Node(node_settings(context.config, how), context.store, context.lower_stores)
    node.open()
    try:
        return sorted(node.peers(wait_s), key=lambda each: (bool(each.trouble), each.address))
    finally:
        node.close()


def open_to_all(settings: NodeSettings) -> bool:
    """Whether strangers from anywhere may ask, and need prove nothing."""
    import ipaddress

    if settings.secret is not None or shown_only_here(settings.host):
        return False
    return any(
        ipaddress.ip_network(each, strict=False).prefixlen <= _EVERYBODY_BITS for each in settings.allow
    )


def own_addresses() -> list[str]:
    """Addresses at which other machines may reach this one: no loopback, IPv4 first."""
    import ifaddr

    found: list[str] = []
    with suppress(OSError):
        for adapter in ifaddr.get_adapters():
            for each in adapter.ips:
                text = each.ip if isinstance(each.ip, str) else each.ip[0]
                if text.startswith(("127.", "fe80", "169.254.")) or text == "::1":
                    continue
                found.append(text)
    return sorted(dict.fromkeys(found), key=lambda text: ":" in text)


def private_here(context: Context, holdings: Sequence[Holding]) -> int:
    """How many checkpoints are here that are not shown, for want of a secret."""
    catalog = context.store.catalog
    shown = {each.id for each in holdings}
    return sum(catalog.is_private(each) for each in catalog.ids() if each not in shown)


def _said_by_whom(error: PortTaken) -> PortTaken:
    """Who has that port, where the system tells."""
    from diachunk.api.checkup.linux import listeners, process

    pid = listeners(range(error.port, error.port + 1)).get(error.port) if sys.platform == "linux" else None
    if pid is None:
        who = "by another process"
    else:
        who = f"by process {pid} ({process(pid).command or 'unknown'})"
    hint = "stop that, or choose another port: --port N"
    return PortTaken(f"port {error.port} is taken {who}", error.port, hint=hint)
