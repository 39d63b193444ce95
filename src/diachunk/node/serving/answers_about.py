"""P2, P4, P9 and P10 of docs/protocol.md: this node, names, who else is there, figures and the page."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from diachunk.digest import parse_digest
from diachunk.manifest.names import is_component, is_name, is_revision
from diachunk.node.guard import asker
from diachunk.node.model import Want
from diachunk.node.serving.page import HEADERS, page
from diachunk.node.serving.replies import Refused, answer, body, failure
from diachunk.node.serving.state import STATE, State

MANIFESTS_MAX = 1000
PEERS_MAX = 64
BORROWED_S = 10.0
_WANTS_MAX = 64
_COMPONENTS_MAX = 1024
_TAKING_MAX = 256
_NODE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_STORE = re.compile(r"[0-9a-f]{1,64}", re.ASCII)


async def node(request: web.Request) -> web.Response:
    """P2."""
    state = request.app[STATE]
    turns = state.uploads.turns
    return answer(
        {
            "diachunk": 1,
            "node": state.node_id,
            "store": state.store_id,
            "version": state.version,
            "port": state.port,
            "secret": state.guard.secret is not None,
            "manifests": [
                {
                    "id": entry.id.hex(),
                    "name": entry.name,
                    "revision": entry.revision,
                    "total_bytes": entry.total_bytes,
                    "have_bytes": entry.have_bytes,
                    "wanted": state.wants.of(entry.id) is not None,
                }
                for entry in state.shelf.manifests()[:MANIFESTS_MAX]
            ],
            "uploads": {"active": turns.active, "slots": turns.slots},
        }
    )


async def refs(request: web.Request) -> web.Response:
    """P4."""
    name, revision = request.match_info["name"], request.query.get("revision")
    if not is_name(name) or (revision is not None and not is_revision(revision)):
        raise Refused(400, "not a name")
    found = request.app[STATE].shelf.refs(name, revision)
    if not found:
        return failure(404, "that name stands for nothing here")
    pairs = [{"revision": ref.revision, "id": ref.manifest_id.hex()} for ref in found]
    return answer({"name": name, "refs": pairs})


async def peers(request: web.Request) -> web.Response:
    """P9."""
    state, host = request.app[STATE], asker(request)
    said = await body(request)
    port, node_id, store_id = said.get("port"), said.get("node"), said.get("store")
    if port is not None and (type(port) is not int or not 0 < port < 65536):
        raise Refused(400, "port: not a port")
    if not isinstance(node_id, str) or not _NODE.fullmatch(node_id):
        raise Refused(400, "node: not 32 hex digits")
    if not isinstance(store_id, str) or not _STORE.fullmatch(store_id):
        raise Refused(400, "store: not hex digits")
    wants = _wants(said.get("wants", []))
    if store_id == state.store_id:
        if _is_loopback(host):
            _borrow(state, wants)
    elif node_id != state.node_id:
        state.roster.announced(host, port, node_id, store_id, wants)
    others = state.roster.others(host, [want.manifest_id for want in wants])[:PEERS_MAX]
    listed = [{"host": there.host, "port": there.port, "age_s": int(age_s)} for there, age_s in others]
    return answer({"you": host, "peers": listed})


def _borrow(state: State, wants: Sequence[Want]) -> None:
    for want in wants:
        state.wants.borrow(want, state.wants.now() + BORROWED_S)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wants(values: Any) -> list[Want]:
    """What is wanted, read as if by an enemy.

    Raises:
        Refused: 400.
    """
    if not isinstance(values, list) or len(values) > _WANTS_MAX:
        raise Refused(400, f"wants: not a list of at most {_WANTS_MAX}")
    return [_want(value) for value in values]


def _want(value: Any) -> Want:
    if not isinstance(value, dict):
        raise Refused(400, "wants: not an object")
    components, feeds, taking = value.get("components"), value.get("feeds"), value.get("taking", [])
    try:
        manifest_id = parse_digest(value.get("manifest"))
    except ValueError:
        raise Refused(400, "wants: manifest: not a digest") from None
    if not isinstance(components, list) or not 0 < len(components) <= _COMPONENTS_MAX:
        raise Refused(400, "wants: components: not a list of names")
    if not all(isinstance(each, str) and is_component(each) for each in components):
        raise Refused(400, "wants: components: not all are names")
    if type(feeds) is not bool or not isinstance(taking, list) or len(taking) > _TAKING_MAX:
        raise Refused(400, "wants: feeds or taking: not what they should be")
    return Want(manifest_id, tuple(dict.fromkeys(components)), feeds, tuple(map(_pair, taking)))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        item, so_far = value
        if type(item) is int and type(so_far) is int and 0 <= item < 2**32 and 0 <= so_far < 2**53:
            return item, so_far
    raise Refused(400, "wants: taking: not pairs of numbers")


async def metrics(request: web.Request) -> web.Response:
    """P10."""
    state = request.app[STATE]
    await state.room.look()
    text = state.metrics.text()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def for_people(request: web.Request) -> web.Response:
    """P10."""
    return web.Response(text=page(request.app[STATE], request.headers.get("Host", "")), headers=HEADERS)
