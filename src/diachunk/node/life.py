"""A node's parts, put together on its loop: what it has, what it answers, whom it asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import socket

from diachunk.digest import Digest
from diachunk.errors import ManifestError
from diachunk.limits import Limits
from diachunk.manifest import Manifest, decode
from diachunk.manifest.statement import Shared, Statement
from diachunk.node.around.calling import IS_CALLED, IS_SILENT
from diachunk.node.around.joining import Joined
from diachunk.node.around.neighbourhood import Neighbourhood, NodeView
from diachunk.node.around.neighbours import Identity
from diachunk.node.around.roster import Roster
from diachunk.node.guard import Guard, is_near, parse_cidrs, parse_ip
from diachunk.node.lifetime import Running
from diachunk.node.model import Address
from diachunk.node.serving.server import Listening, make_app, serve_on
from diachunk.node.serving.state import State
from diachunk.node.serving.uploads import Uploads
from diachunk.node.settings import NodeSettings
from diachunk.node.stock.shelf import Shelf
from diachunk.node.stock.wants import Wants
from diachunk.node.views import Holding, PeerView, RefView
from diachunk.store.store import Store
from diachunk.transfer.progress import Listener, silent

_MANIFESTS_ASKED_MAX = 8
_LOOK_S = 0.05
_SETTLES_S = 1.0


class Life:
    """One life of a node, from `start` to `close`. Used on its loop.

    Attributes:
        grace_s: how long `close` waits for uploads under way; may be changed while it does.
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: Store,
        lower_stores: Sequence[Store],
        sockets: list[socket],
        speaks_through: Running | None,
    ) -> None:
        self.grace_s = 0.0
        self._settings = settings
        self._sockets = sockets
        self._listening: Listening | None = None
        self._allowed = parse_cidrs(settings.allow)
        limits = settings.limits
        store_id = store.layout.store_id
        self._roster = roster = Roster(limits, time.monotonic, store_id)
        wants = Wants()
        self._shelf: Shelf | None = None
        self._state: State | None = None
        if sockets:
            self._shelf = Shelf(
                store,
                lower_stores,
                secret=settings.secret is not None,
                verify_claimed=settings.serves,
                limits=limits,
            )
            self._state = State(
                self._shelf,
                wants,
                Uploads(limits.upload_slots, settings.max_up_bps, limits),
                Guard(self._allowed, settings.secret),
                roster,
                limits,
                settings.node,
                store_id,
            )
        self._around = Neighbourhood(
            Identity(settings.node, store_id),
            roster,
            wants,
            settings.secret,
            limits,
            named=settings.peers,
            discover=settings.discover,
            share_port=sockets[0].getsockname()[1] if sockets else None,
            shelf=self._shelf,
            speak_through=Address("127.0.0.1", speaks_through.port) if speaks_through is not None else None,
            allows=self._allows,
        )

    def _allows(self, host: str) -> bool:
        """P11, P14: whom we answer is also whom we call, where others name them."""
        ip = parse_ip(host)
        return ip is not None and (is_near(ip) or any(ip in network for network in self._allowed))

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._state is not None and self._shelf is not None:
            await self._shelf.start()
            self._listening = await serve_on(
                make_app(self._state), self._settings.host, (), sockets=self._sockets
            )
        await self._around.start()

    async def close(self) -> None:
        """Says good-bye to others, lets uploads end, and lets go of everything."""
        await self._around.close()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while self._uploads_active and loop.time() - began_at < self.grace_s:
            await asyncio.sleep(_LOOK_S)
        if self._listening is not None:
            await self._listening.close()
        if self._shelf is not None:
            await self._shelf.close()

    @property
    def _uploads_active(self) -> int:
        return self._state.uploads.turns.active if self._state is not None else 0

    # --- what is asked of it -------------------------------------------------------------------------------

    def join(
        self, shared: Shared, listener: Listener = silent, here: Mapping[Digest, Path] | None = None
    ) -> Joined:
        """The other machines, for the sessions of one manifest, or statement.

        Args:
            listener: told of those that lie, on the loop.
            here: a statement's files that are here already, by key.
        """
        if here and self._shelf is not None and isinstance(shared, Statement):
            asyncio.get_running_loop().run_in_executor(None, self._shelf.stated.keep, shared, here)
        return self._around.join(shared, listener)

    async def ask_refs(
        self, name: str, revision: str, wait_s: float, found_by: Digest | None = None
    ) -> list[RefView]:
        """What others say that a name stands for, or have of stated files; the first few ids with their manifests."""
        await self._wait_for_named(wait_s)
        answers = await self._around.ask_refs(name, revision, 0.0)
        said = [
            (str(address), how.word, manifest_id)
            for address, how, refs in answers
            for at, manifest_id in refs
            if at == revision
        ]
        if found_by is not None:
            stated = await self._around.ask_stated(found_by)
            said += [(str(address), how.word, each) for address, how, ids in stated for each in ids]
            said = list(dict.fromkeys(said))
        ids = list(dict.fromkeys(manifest_id for _, _, manifest_id in said))[:_MANIFESTS_ASKED_MAX]
        had = {each: await self.ask_manifest(each, 0.0) for each in ids}
        return [RefView(address, how, each, had.get(each)) for address, how, each in said]

    async def _wait_for_named(self, wait_s: float) -> None:
        """Until those answered whom the user named, if any did; else until nobody more is to be expected."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until and self._around.is_looking():
            named = [each for each in self._around.nodes() if each.how in ("named", "dns")]
            tried = all(each.version or each.trouble not in ("", IS_CALLED, IS_SILENT) for each in named)
            if tried and any(each.version for each in named):
                return
            await asyncio.sleep(_LOOK_S)

    async def ask_manifest(self, manifest_id: Digest, wait_s: float) -> Manifest | None:
        """What hashes to this id, from whoever has it."""
        found: list[Manifest] = []
        limits = self._settings.limits

        def accept(text: bytes) -> None:
            found.append(_of_id(text, manifest_id, limits))

        text = await self._around.ask_manifest(manifest_id, accept, wait_s)
        return found[-1] if text is not None and found else None

    async def peers(self, wait_s: float) -> list[PeerView]:
        """Who is there; after a wait, what they say now."""
        if wait_s:
            await self._around.settle(wait_s)
            await self._around.look_again()
        return _each_once(self._around.nodes())

    async def holdings(self) -> list[Holding]:
        if self._shelf is None or self._state is None:
            return []
        wants = self._state.wants
        return [
            Holding(
                each.id,
                each.name,
                each.revision,
                each.total_bytes,
                each.have_bytes,
                wants.of(each.id) is not None,
            )
            for each in self._shelf.manifests()
        ]

    async def incomplete(self) -> int:
        """How many machines fetch what was fetched here, and are not done."""
        count = len(self._around.incomplete())
        if not count and any(each.wants for each in self._roster if self._around.is_reached(each.address)):
            # It announced what it wants, and did not say yet what it has of it.
            await asyncio.sleep(_SETTLES_S)
            count = len(self._around.incomplete())
        return count

    async def given_bytes(self) -> int:
        """What others got from here."""
        return self._state.uploads.sent_bytes if self._state is not None else 0


def _of_id(text: bytes, manifest_id: Digest, limits: Limits) -> Manifest:
    """Raises ManifestError unless it is that one."""
    manifest = decode(text, limits)
    if manifest.id != manifest_id:
        raise ManifestError(f"a manifest of id {manifest.hex_id[:16]} in place of {manifest_id.hex()[:16]}")
    return manifest


def _each_once(nodes: Sequence[NodeView]) -> list[PeerView]:
    """A machine that is known by several addresses, by the one that is trusted most."""
    found: dict[str, PeerView] = {}
    for each in sorted(nodes, key=lambda each: (bool(each.trouble), _TRUST.get(each.how, 9), each.address)):
        node = each.neighbour.facts.node if each.neighbour is not None else str(each.address)
        found.setdefault(node, _view(each))
    return list(found.values())


_TRUST = {"named": 0, "dns": 1, "mdns": 2}


def _view(node: NodeView) -> PeerView:
    facts = node.neighbour.facts if node.neighbour is not None else None
    holdings = (
        Holding(each.id, each.name, each.revision, each.total_bytes, each.have_bytes, each.wanted)
        for each in (facts.manifests if facts is not None else ())
    )
    return PeerView(
        str(node.address),
        node.how,
        node.version,
        node.secret,
        node.rate_bps,
        node.trouble,
        tuple(holdings),
    )
