"""What `serve` says: its first lines, one line an event, and the same as JSON."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diachunk.cli import text
from diachunk.cli.talk import Talk, emit, to_stderr

if TYPE_CHECKING:
    from diachunk.api.serving import Serving
    from diachunk.digest import Digest
    from diachunk.node.views import Holding, PeerView
    from diachunk.store.store import Store

_LOGGER = "diachunk.node"
_HOW = {
    "named": "named by you",
    "dns": "by DNS",
    "mdns": "found on this network",
    "exchange": "announced",
}
_ADDRESSES_SHOWN = 4
_PEERS_MAX = 1024


class Journal:
    """Notices what changed since it last looked, and writes it down."""

    def __init__(self, talk: Talk, environment: Mapping[str, str] = os.environ) -> None:
        self._talk = talk
        # journald and a container's log put the time in front themselves; on a terminal the hour is enough.
        stamped = not environment.get("JOURNAL_STREAM")
        self._clock = ("%H:%M:%S " if sys.stderr.isatty() else "%Y-%m-%dT%H:%M:%S%z ") if stamped else ""
        self._peers: dict[str, PeerView] = {}
        self._holdings: dict[Digest, Holding] = {}
        self._emptied = self._lost = False

    def log(self, level: str, line: str, **facts: object) -> None:
        """One event. Warnings are said with -q as well."""
        if self._talk.as_json:
            emit("log", level=level, text=line, **facts)
        elif level in ("warning", "error") or not self._talk.quiet:
            head = time.strftime(self._clock) if self._clock else ""
            to_stderr(f"{head}{'warning: ' if level == 'warning' else ''}{line}")

    @contextmanager
    def logging(self) -> Iterator[None]:
        """What the node's parts log is part of it."""
        logger = logging.getLogger(_LOGGER)
        handler = _Handler(self)
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        # Until the first lines are out, which say what the parts would.
        logger.setLevel(logging.DEBUG if self._talk.verbose else logging.WARNING)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]

    # --- the beginning -------------------------------------------------------------------------------------

    def opening(self, serving: Serving) -> None:
        """What is shared, where, to whom; and what to type elsewhere."""
        from diachunk.api.serving import open_to_all, own_addresses, private_here

        holdings = serving.holdings()
        self._holdings = {each.id: each for each in holdings}
        if not self._talk.verbose:
            logging.getLogger(_LOGGER).setLevel(logging.INFO)
        settings, store = serving.settings, serving.context.store
        addresses = [settings.host] if settings.host else own_addresses()
        hidden = 0 if settings.secret is not None else private_here(serving.context, holdings)
        self._talk.say("\n".join(_opening(serving, holdings, addresses)))
        self._talk.emit(
            "serving",
            port=serving.port,
            addresses=addresses,
            store=str(store.root),
            node=settings.node,
            allow=list(settings.allow),
            secret=settings.secret is not None,
            discover=settings.discover,
            peers=list(settings.peers),
            checkpoints=[_facts(each) for each in holdings],
            private=hidden,
        )
        if open_to_all(settings):
            self.log(
                "warning",
                "everybody who reaches this machine may take what it shares: --allow is as wide as the world, and no "
                "secret is asked for; set token_file (docs/sharing.md)",
            )
        if hidden:
            self.log(
                "warning",
                f"{text.count(hidden, 'private checkpoint')} {'is' if hidden == 1 else 'are'} not shared: that takes "
                "the lab's secret; set token_file (docs/sharing.md)",
            )

    def status(self, serving: Serving) -> str:
        """One line for a service manager."""
        others = sum(not each.trouble for each in self._peers.values())
        given = serving.given_bytes()
        if self._lost:
            return f"the store {serving.context.store.root} is not there: nothing is shared"
        parts = [f"sharing {_sum(list(self._holdings.values()))} on port {serving.port}"]
        parts.append(f"{text.count(others, 'other machine')} here")
        if given:
            parts.append(f"{text.size(given)} given")
        return ", ".join(parts)

    # --- events --------------------------------------------------------------------------------------------

    def news(self, serving: Serving) -> None:
        """Says who came or went, and which checkpoints did."""
        self._tell_peers({each.address: each for each in serving.peers()[:_PEERS_MAX]})
        holdings = {each.id: each for each in serving.holdings()}
        self._tell_store(serving.context.store, holdings)
        self._tell_holdings(holdings)

    def _tell_peers(self, now: dict[str, PeerView]) -> None:
        for address, each in now.items():
            before = self._peers.get(address)
            if before is not None and before.trouble == each.trouble:
                continue
            facts = {"address": address, "how": each.how, "version": each.version, "trouble": each.trouble}
            if each.trouble:
                if before is not None or each.how in ("named", "dns"):
                    self.log("info", f"peer {address}: {each.trouble}", event_kind="peer", **facts)
            else:
                how = _HOW.get(each.how, each.how)
                came = "is back" if before is not None and before.version else "is here"
                line = f"peer {address} {came} ({how}, diachunk {each.version})"
                self.log("info", line, event_kind="peer", **facts)
        for address in self._peers.keys() - now.keys():
            self.log("info", f"peer {address} is gone", event_kind="peer", address=address)
        self._peers = now

    def _tell_store(self, store: Store, now: dict[Digest, Holding]) -> None:
        """A disk that was unmounted, or a directory deleted, looks as if all had been removed one by one."""
        self._emptied = not now and (self._emptied or bool(self._holdings))
        if self._emptied and not self._lost and not store.layout.is_there():
            self._lost = True
            line = f"the store {store.root} is not there any more: nothing is shared until it is back"
            self.log("warning", line, event_kind="store", store=str(store.root), there=False)
        elif self._lost and (now or store.layout.is_there()):
            self._emptied = self._lost = False
            self.log("info", "the store is back", event_kind="store", store=str(store.root), there=True)

    def _tell_holdings(self, now: dict[Digest, Holding]) -> None:
        for key, each in now.items():
            before = self._holdings.get(key)
            name = text.ref(f"{each.name}@{each.revision}")
            part = f"{text.percent(each.have_bytes, each.total_bytes)} of {text.size(each.total_bytes)}"
            if before is None:
                self._tell_one(f"{name} is new here: {part}", each)
            elif each.complete and not before.complete:
                self._tell_one(f"{name} is complete: {text.size(each.total_bytes)}", each)
            elif before.complete and not each.complete:
                cure = f"`diachunk verify {name} --repair` mends it"
                self._tell_one(f"{name} is not complete any more: {part}; {cure}", each, "warning")
        for key in () if self._lost else self._holdings.keys() - now.keys():
            gone = self._holdings[key]
            self._tell_one(f"{text.ref(f'{gone.name}@{gone.revision}')} was removed", gone)
        self._holdings = now

    def _tell_one(self, line: str, holding: Holding, level: str = "info") -> None:
        self.log(level, line, event_kind="checkpoint", **_facts(holding))

    # --- the end -------------------------------------------------------------------------------------------

    def stopping(self, number: int) -> None:
        import signal

        self.log("info", f"{signal.Signals(number).name}: stopping; uploads under way have a few seconds")

    def stopped(self) -> None:
        self.log("info", "stopped")


class _Handler(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno >= logging.WARNING else "info"
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._journal.log(level, line)


def _facts(holding: Holding) -> dict[str, object]:
    return {
        "id": holding.id.hex(),
        "name": holding.name,
        "revision": holding.revision,
        "total_bytes": holding.total_bytes,
        "have_bytes": holding.have_bytes,
    }


def _sum(holdings: Sequence[Holding]) -> str:
    here = sum(each.have_bytes for each in holdings)
    return f"{text.count(len(holdings), 'checkpoint')}, {text.size(here)}"


def _opening(serving: Serving, holdings: Sequence[Holding], addresses: Sequence[str]) -> Iterator[str]:
    settings = serving.settings
    yield f"sharing {_sum(holdings)}, from {serving.context.store.root}"
    shown = ", ".join(addresses[:_ADDRESSES_SHOWN]) or "this machine alone"
    more = f" and {len(addresses) - _ADDRESSES_SHOWN} more" if len(addresses) > _ADDRESSES_SHOWN else ""
    yield f"  on port {serving.port} of {shown}{more}"
    whom = "private and directly connected networks"
    allowed = f", and {', '.join(settings.allow)}" if settings.allow else ""
    secret = "to whoever knows the lab's secret" if settings.secret is not None else "no secret"
    found = "found by mDNS" if settings.discover else "not looking for others (no mDNS)"
    cap = f"; gives {text.rate(settings.max_up_bps)} at most" if settings.max_up_bps is not None else ""
    yield f"  with {whom}{allowed}; {secret}; {found}{cap}"
    name = next((each.name for each in holdings if each.complete), holdings[0].name if holdings else "")
    if not addresses:
        return
    host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    peer = host if serving.port == 8420 else f"{host}:{serving.port}"
    if name:
        here = addresses[0].startswith("127.") or addresses[0] == "::1"
        where = "this machine, for another store" if here else "another machine"
        yield f"on {where}: {text.command('fetch', name, '--peer', peer)}"
    else:
        yield (
            "nothing is here yet: `diachunk fetch NAME` on this machine, in another terminal; it is shared as it comes"
        )
