"""Machines that begin the same at one moment know of each other at once: till then they take the same from upstream."""

from __future__ import annotations

import hashlib

import pytest
from aiohttp import web

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import Manifest
from diachunk.manifest.stated import StatedFile
from diachunk.manifest.statement import Shared, Statement
from diachunk.node.around import greeting, neighbourhood
from diachunk.node.model import Want
from diachunk.transfer.company import Company
from fixtures.hostile_peer import HostilePeer
from fixtures.neighbour import Around, Told, until
from store_files import PIECES, manifest_of

ONE = manifest_of("lab/thing", {"model/a.bin": PIECES})
FILE = StatedFile("model", "a.bin", 3 * CHUNK_BYTES, hashlib.sha256(b"a").hexdigest())
STATEMENT = Statement.of([FILE])


@pytest.fixture(autouse=True)
def nothing_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only looked at now and then comes too late."""
    monkeypatch.setattr(neighbourhood, "_TICK_S", 60.0)
    monkeypatch.setattr(greeting, "_LOOK_S", 60.0)


async def unknown(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    return web.json_response({"error": "not here"}, status=404)


@pytest.mark.parametrize("shared", [ONE, STATEMENT], ids=["manifest", "statement"])
def test_what_a_session_wants_is_told_to_others_when_it_begins(shared: Manifest | Statement) -> None:
    with HostilePeer(shared, has=Bitmap(4)) as peer, Around(peer.address) as around:
        until(lambda: peer.heard)
        around.began(shared)
        until(lambda: any(each["wants"] for each in peer.heard), 5.0)
        (said,) = peer.heard[-1]["wants"]
        assert (said["manifest"], said["components"]) == (shared.id.hex(), sorted(said["components"]))


@pytest.mark.parametrize("shared", [ONE, STATEMENT], ids=["manifest", "statement"])
def test_who_says_that_it_begins_the_same_is_a_member_and_asked_at_once(shared: Manifest | Statement) -> None:
    with HostilePeer(shared, script={"have": unknown}) as peer, Around(peer.address) as around:
        told = around.began(shared)
        until(lambda: peer.asked["have"])
        until(lambda: peer.heard)
        asked = peer.asked["have"]
        peer.script.clear()
        want = Want(shared.id, ("model",), True)
        around.call(lambda: around.roster.announced("127.0.0.1", peer.port, peer.node, peer.store, [want]))
        until(lambda: told.others, 5.0)
        until(lambda: peer.asked["have"] > asked, 5.0)
        assert list(told.others) == [peer.address]


def test_a_statement_is_asked_of_nobody_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not fetch it has nothing of it: it is no source, and keeps nobody waiting."""
    monkeypatch.setattr(neighbourhood, "_TICK_S", 0.5)
    with HostilePeer(STATEMENT, script={"have": unknown}) as peer, Around(peer.address) as around:
        told = around.began(STATEMENT)
        until(lambda: peer.asked["have"])
        until(lambda: not told.expecting, 10.0)
        assert (peer.asked["digests"], told.held) == (0, {})


def test_members_that_draw_the_same_do_whatever_they_call_its_parts() -> None:
    with HostilePeer(STATEMENT, has=Bitmap(3)) as peer, Around(peer.address) as around:
        peer.tell(wants=[""], feeds=True)
        told = Told(STATEMENT, called="codec")
        around.join(STATEMENT).began(told)
        until(lambda: told.others)
        assert told.others[peer.address].components == {"codec"}


class Shown:
    """A shelf that notes what is lent to it."""

    def __init__(self) -> None:
        self.lent: list[Shared] = []

    def lend(self, company: Company, shared: Shared) -> None:
        self.lent.append(shared)

    def unlend(self, company: Company) -> None:
        self.lent.pop()


def test_a_session_that_takes_nothing_from_others_shows_them_what_it_gets() -> None:
    """What came wrong in company is fetched from upstream alone: the others may well have that."""
    shelf = Shown()
    with HostilePeer(STATEMENT, has=Bitmap.full(3)) as peer, Around(peer.address, shelf=shelf) as around:
        told = Told(STATEMENT)
        told.joins = False
        joined = around.join(STATEMENT)
        joined.began(told)
        until(lambda: peer.asked["have"])
        assert (shelf.lent, told.held) == ([STATEMENT], {})
        assert around.call(lambda: around.wants.of(STATEMENT.id)) is None
        joined.ended(told)
        assert shelf.lent == []
