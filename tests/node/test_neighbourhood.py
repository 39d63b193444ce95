"""Nodes find each other: by name, by records, by what others pass on; and are asked for names and manifests."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from socket import gaierror

import pytest
from aiohttp import web

from diachunk.errors import ManifestError, UsageError
from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest, decode, encode
from diachunk.node.around.resolving import Named, look_up
from diachunk.node.around.roster import How
from diachunk.node.around.talking import Reply, Talker, Unreached
from diachunk.node.guard import Guard
from diachunk.node.model import Address
from diachunk.sources.secret import Secret
from diachunk.store.store import Store
from fixtures.hostile_peer import HostilePeer
from fixtures.neighbour import Around, until
from fixtures.served import Served
from store_files import PIECES, keep, manifest_of

FILES = {"model/a.bin": PIECES}
LIMITS = dataclasses.replace(DEFAULT, stall_s=1.0, connect_timeout_s=1.0, backoff_first_s=0.05)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifest_of("lab/thing", FILES)


@pytest.fixture
def three() -> Iterator[list[HostilePeer]]:
    """Three that each know the next."""
    with ExitStack() as stack:
        peers = [stack.enter_context(HostilePeer()) for _ in range(3)]
        for one, following in pairwise(peers):
            one.others = [{"host": "127.0.0.1", "port": following.port, "age_s": 1}]
        yield peers


def reached(around: Around) -> set[str]:
    return around.call(lambda: {str(key) for key, each in around.it.neighbours.items() if each.reached})


def test_through_any_node_reached_all_are_found_and_each_is_told_of_us(three: list[HostilePeer]) -> None:
    with Around(three[0].address, share_port=8429) as around:
        until(lambda: reached(around) == {each.address for each in three})
        until(lambda: all(each.heard for each in three))
        said = three[2].heard[0]
        assert (said["port"], said["node"], said["store"]) == (
            8429,
            around.identity.node,
            around.identity.store,
        )
        assert {each.how for each in around.call(around.it.nodes)} == {"named", "exchange"}


def test_a_node_of_our_own_store_is_not_among_the_neighbours() -> None:
    with HostilePeer(store="feed") as own, HostilePeer() as other:
        other.others = [{"host": "127.0.0.1", "port": own.port, "age_s": 0}]
        with Around(own.address, other.address, store="feed") as around:
            until(lambda: own.asked["node"] and other.heard)
            until(lambda: reached(around) == {other.address})
            assert not own.heard


def test_who_announces_itself_is_called_back_and_a_real_node_is_a_peer(
    tmp_path: Path, manifest: Manifest
) -> None:
    store = Store.open(tmp_path / "store")
    keep(store, manifest, FILES)
    with HostilePeer() as stranger, Around() as around:
        say = ("127.0.0.1", stranger.port, stranger.node, stranger.store, ())
        around.call(lambda: around.roster.announced(*say))
        until(lambda: reached(around) == {stranger.address})
        until(lambda: stranger.heard)
    with Served(store) as served, Around(f"127.0.0.1:{served.port}") as around:
        told = around.began(manifest)
        assert until(lambda: told.held) == {f"127.0.0.1:{served.port}": {0, 1, 2, 3}}


def test_with_a_secret_nodes_prove_it_in_every_request_and_others_are_shut_out(
    tmp_path: Path, manifest: Manifest
) -> None:
    store = Store.open(tmp_path / "store")
    keep(store, manifest, FILES)
    secret = Secret(b"a secret of the lab")
    with Served(store, guard=Guard(secret=secret)) as served:
        name = f"127.0.0.1:{served.port}"
        with Around(name, secret=secret) as around:
            told = around.began(manifest)
            until(lambda: told.held)
        with Around(name) as around:
            told = around.began(manifest)
            until(lambda: around.states().get(name) == "wants the lab's secret; this machine has none")
            assert not told.held


@pytest.mark.parametrize("how", [How.EXCHANGE, How.ANNOUNCED, How.MDNS])
def test_an_address_that_p11_would_not_let_in_is_never_called_however_it_came(
    monkeypatch: pytest.MonkeyPatch, how: How
) -> None:
    called: list[str] = []

    async def ask(self: Talker, address: Address, target: str, **options: object) -> Reply:
        called.append(address.host)
        raise Unreached("not in this test")

    monkeypatch.setattr(Talker, "ask", ask)
    with Around() as around:
        informant = Address("10.0.0.9", 8420)
        peers = [
            (Address("8.8.8.8", 8420), 0.0),
            (Address("10.0.0.7", 22), 0.0),
            (Address("10.0.0.8", 8420), 0.0),
        ]
        around.call(lambda: around.it.learned(informant, peers))
        assert around.call(lambda: [each.address.host for each in around.roster]) == ["10.0.0.8"]
        around.call(lambda: around.roster.note(Address("8.8.4.4", 8420), how))
        around.call(lambda: around.roster.note(Address("10.0.0.6", 8420), how))
        until(lambda: {"10.0.0.6", "10.0.0.8"} <= set(called))
        assert "8.8.4.4" not in called


# --- names -----------------------------------------------------------------------------------------------------


class Records:
    """DNS."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked += 1
        if host not in self.found:
            raise gaierror(-2, "unknown")
        return [Address(each, port) for each in self.found[host]]


def test_of_a_name_the_address_is_used_that_answers(manifest: Manifest) -> None:
    records = Records()
    with HostilePeer(host="127.0.0.3") as peer:
        records.found = {"lab-7": ["127.0.0.1", "127.0.0.2", "127.0.0.3"]}
        with Around(f"lab-7:{peer.port}", look_up=records) as around:
            until(lambda: reached(around) == {peer.address})
            until(lambda: around.roster.count == 1)


def test_a_name_that_is_unknown_is_shown_and_tried_again(manifest: Manifest) -> None:
    records = Records()
    with HostilePeer() as peer, Around(f"lab-7:{peer.port}", look_up=records) as around:
        until(lambda: around.states() == {f"lab-7:{peer.port}": "no such host"})
        records.found["lab-7"] = ["127.0.0.1"]
        until(lambda: reached(around) == {peer.address}, 3.0)
        until(lambda: around.states() == {peer.address: ""})


def test_a_name_whose_addresses_are_all_silent_is_not_called_for_ever() -> None:
    """A firewall that drops packets, and a machine that has two addresses: one is tried while the other times out."""
    records, hosts = Records(), ("127.0.0.1", "127.0.0.2")
    records.found = {"lab-7": list(hosts)}
    limits = dataclasses.replace(LIMITS, stall_s=2.5)
    with ExitStack() as stack:
        port = 0
        for host in hosts:
            mute = stack.enter_context(socket.create_server((host, port)))
            port = mute.getsockname()[1]
        with Around(f"lab-7:{port}", look_up=records, limits=limits) as around:
            both = [f"{host}:{port}" for host in hosts]
            until(lambda: around.states() == {both[0]: "no answer yet"}, 5.0)
            for address in both:
                until(lambda: around.states() == {address: "no answer in time"}, 10.0)  # noqa: B023
            shown: list[tuple[str, str]] = []

            def turns() -> int:
                shown.extend(each for each in around.states().items() if each not in shown[-1:])
                return len(shown)

            until(lambda: turns() >= 4, 12.0)
            assert {trouble for _, trouble in shown} == {"no answer in time"}


def test_of_a_dns_peer_every_record_is_a_node() -> None:
    records = Records()
    with HostilePeer() as one, HostilePeer(host="127.0.0.2", port=one.port) as two:
        records.found = {"nodes": ["127.0.0.1", "127.0.0.2"]}
        with Around(f"dns:nodes:{one.port}", look_up=records) as around:
            until(lambda: reached(around) == {one.address, two.address})
            assert {each.how for each in around.call(around.it.nodes)} == {"dns"}


def test_names_that_make_no_sense_are_refused() -> None:
    for text in ("http://lab-7", "lab-7:0", "dns:10.0.0.1", ""):
        with pytest.raises(UsageError):
            Named.parse(text)
    assert Named.parse("dns:nodes:9000").address == Address("nodes", 9000)


def test_the_systems_resolver_is_asked_and_does_not_hold_anything_up() -> None:
    with Around() as around:
        assert around.run(look_up("localhost", 8420))[0] == Address("127.0.0.1", 8420)
        with pytest.raises(OSError):
            around.run(look_up("no.such.host.invalid", 8420))
        with pytest.raises(OSError):
            around.run(look_up("a" * 300, 8420))


# --- what is asked ---------------------------------------------------------------------------------------------


def test_refs_are_asked_of_all_that_can_be_reached_also_just_after_the_start(manifest: Manifest) -> None:
    with HostilePeer(manifest) as one, HostilePeer() as two:
        one.refs = {"lab/thing": {"main": manifest.hex_id, "old": "ab" * 32}}
        two.refs = {"lab/thing": {"main": "cd" * 32}}
        one.others = [{"host": "127.0.0.1", "port": two.port, "age_s": 0}]
        with Around(one.address) as around:
            said = around.run(around.it.ask_refs("lab/thing", "main"))
            assert [(str(address), how, refs) for address, how, refs in said] == [
                (one.address, How.NAMED, [("main", manifest.id)]),
                (two.address, How.EXCHANGE, [("main", bytes.fromhex("cd" * 32))]),
            ]
            every = around.run(around.it.ask_refs("lab/thing"))
            assert len(every[0][2]) == 2
            assert around.run(around.it.ask_refs("lab/other")) == []


def test_a_manifest_comes_from_whoever_has_it_and_a_wrong_one_is_passed_over(manifest: Manifest) -> None:
    wrong = manifest_of("lab/else", {"model/z.bin": PIECES[:1]})

    async def lies(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        return web.Response(body=encode(wrong))

    def accept(text: bytes) -> None:
        if decode(text).id != manifest.id:
            raise ManifestError("another one")

    with HostilePeer(manifest, script={"manifest": lies}) as liar, HostilePeer() as none:
        with HostilePeer(manifest) as honest, Around(liar.address, none.address, honest.address) as around:
            until(lambda: len(reached(around)) == 3)
            text = around.run(around.it.ask_manifest(manifest.id, accept))
            assert text == encode(manifest)
            if liar.asked["manifest"]:
                assert "sent another manifest" in around.states()[liar.address]
        with Around(liar.address) as around:
            assert around.run(around.it.ask_manifest(manifest.id, accept)) is None


def test_nobody_there_costs_a_question_only_a_moment() -> None:
    with Around() as around:
        began_at = time.monotonic()
        assert around.run(around.it.ask_refs("lab/thing", "main")) == []
        assert around.run(around.it.ask_manifest(bytes(32))) is None
        assert time.monotonic() - began_at < 1.0


def test_what_nodes_are_and_hold_is_shown(manifest: Manifest) -> None:
    with HostilePeer(manifest) as peer, HostilePeer() as gone:
        gone.close()
        with Around(peer.address, gone.address) as around:
            until(lambda: around.states() == {peer.address: "", gone.address: "connection refused"})
            one = next(each for each in around.call(around.it.nodes) if str(each.address) == peer.address)
            assert one.neighbour is not None
            assert (one.version, one.store, one.rate_bps) == ("0.0.1", peer.store, None)
            assert one.neighbour.facts.manifests[0].complete
            assert 0 < (one.rtt_s or 0) < 1.0
