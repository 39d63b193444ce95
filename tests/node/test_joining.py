"""What a session is told of other nodes, as they come, gain, lose, go and come back."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

import pytest
from aiohttp import web

from diachunk.bitmap import Bitmap
from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest
from diachunk.node.around import joining
from diachunk.node.around.numbering import Numbering
from diachunk.node.around.roster import How
from diachunk.node.model import Address, Want
from diachunk.sources.peer import PeerSource
from fixtures.hostile_peer import HostilePeer
from fixtures.neighbour import Around, Told, until
from store_files import PIECES, manifest_of

FILES = {
    "model/a.bin": PIECES,
    "model/b.bin": PIECES[1:3],
    "vocoder/c.bin": (b"c" * 1000, PIECES[0], b"d" * 10),
}
LIMITS = dataclasses.replace(DEFAULT, stall_s=1.0, connect_timeout_s=1.0, backoff_first_s=0.05)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifest_of("lab/thing", FILES)


def test_bits_are_counted_over_the_whole_manifest_and_items_over_what_is_wanted(manifest: Manifest) -> None:
    numbering = Numbering(manifest)
    assert numbering.bits == 6
    mapped = numbering.of(Told(manifest, ["vocoder"]).work)
    assert list(mapped.number_of) == [4, 0, 5]
    assert set(mapped.bitmap(Bitmap(6, [0, 1, 5]).to_bytes())) == {1, 2}
    assert list(mapped.items([3, 4, 5])) == [0, 2]
    assert mapped.under_way({0: 7, 3: 9}) == {1: 7}
    assert mapped.pairs({1: 7, 2: 8}, 10) == ((0, 7), (5, 8))


@pytest.mark.parametrize("ones", [range(0), range(0, 2000, 400), range(0, 2000, 3), range(2000)])
def test_a_bitmap_is_mapped_the_same_way_however_many_bits_are_set(ones: range) -> None:
    pieces = [f"{index}".encode() for index in range(2000)]
    manifest = manifest_of("n", {"a/x": pieces[:700], "b/y": pieces[700:]})
    mapped = Numbering(manifest).of(Told(manifest, ["b"]).work)
    got = set(mapped.bitmap(Bitmap(2000, ones).to_bytes()))
    assert got == {number - 700 for number in ones if number >= 700}


def test_a_named_node_becomes_a_peer_with_what_it_has_of_what_is_wanted(manifest: Manifest) -> None:
    with HostilePeer(manifest, has=Bitmap(6, [0, 4])) as peer, Around(peer.address) as around:
        told = around.began(manifest, ["vocoder"])
        assert until(lambda: told.held) == {peer.address: {0, 1}}
        assert isinstance(told.sources[0], PeerSource)
        assert not told.sources[0].by_chunks


def test_gains_are_told_as_they_come_and_a_loss_as_a_whole(manifest: Manifest) -> None:
    with HostilePeer(manifest, has=Bitmap(6, [0])) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        until(lambda: told.held.get(peer.address) == {0})
        peer.tell(3, 5)
        until(lambda: told.held[peer.address] == {0, 3, 5})
        peer.lose(Bitmap(6, [5]))
        until(lambda: told.held[peer.address] == {5})
        assert [what for what, _ in told.log] == ["adds", "gains", "holds"]


def test_a_node_that_dies_leaves_and_when_it_is_back_it_returns(manifest: Manifest) -> None:
    with Around(limits=LIMITS) as around:
        with HostilePeer(manifest, has=Bitmap(6, [0])) as peer:
            told = around.began(manifest)
            around.call(lambda: around.roster.note(Address("127.0.0.1", peer.port), How.NAMED))
            until(lambda: peer.address in told.held)
        until(lambda: not told.held)
        with HostilePeer(manifest, has=Bitmap(6, [0, 1]), port=peer.port) as back:
            until(lambda: told.held.get(back.address) == {0, 1})
        assert [what for what, _ in told.log][:3] == ["adds", "leaves", "returns"]
        assert len(told.sources) == 1


def test_a_peer_that_appears_is_used_within_3_seconds(manifest: Manifest) -> None:
    with HostilePeer(manifest) as gone:
        port = gone.port
    with Around(f"localhost:{port}") as around:
        told = around.began(manifest)
        until(lambda: around.states().get(f"127.0.0.1:{port}") == "connection refused")
        with HostilePeer(manifest, port=port) as peer:
            appeared_at = time.monotonic()
            until(lambda: peer.address in told.held)
            assert time.monotonic() - appeared_at < 3.0


def test_a_node_that_does_not_know_the_manifest_is_asked_for_digests_and_gives_chunks(
    manifest: Manifest,
) -> None:
    other = manifest_of("lab/other", {"model/z.bin": PIECES[2:]})
    blobs = {file.blake3: b"".join(PIECES[2:]) for _, file in other.walk()}
    with HostilePeer(other, blobs) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        assert until(lambda: told.held) == {peer.address: {2, 3}}
        assert isinstance(source := told.sources[0], PeerSource)
        assert source.by_chunks
        time.sleep(0.5)
        assert peer.asked["digests"] == 1


def test_two_sessions_of_one_fetch_get_the_same_peers(manifest: Manifest) -> None:
    with HostilePeer(manifest) as peer, Around(peer.address) as around:
        first = around.began(manifest, ["model"])
        until(lambda: first.held)
        around.join(manifest).ended(first)
        second = around.began(manifest, ["vocoder"])
        assert until(lambda: second.held) == {peer.address: {0, 1, 2}}
        peer.tell(taking=[])
        assert [what for what, _ in first.log] == ["adds"]


# --- members ---------------------------------------------------------------------------------------------------


def test_members_are_those_that_fetch_the_same_and_me_is_what_they_call_me(manifest: Manifest) -> None:
    with (
        HostilePeer(manifest, has=Bitmap(6)) as one,
        HostilePeer(manifest) as idle,
        Around(one.address, idle.address, share_port=8429) as around,
    ):
        one.tell(wants=["model"], feeds=True, taking=[[3, 70_000], [4, 5]])
        told = around.began(manifest, ["model"])
        until(lambda: told.others and told.takes.get(one.address))
        until(lambda: idle.address in told.held)
        assert told.me == "127.0.0.1:8429"
        assert list(told.others) == [one.address]
        assert (told.others[one.address].components, told.others[one.address].feeds) == (
            frozenset({"model"}),
            True,
        )
        assert told.takes[one.address] == {3: 70_000}
        one.tell(wants=None)
        until(lambda: not told.others)


def test_who_does_not_share_is_no_member_itself(manifest: Manifest) -> None:
    with HostilePeer(manifest) as peer, Around(peer.address) as around:
        peer.tell(wants=["model"])
        told = around.began(manifest)
        until(lambda: told.others)
        assert told.me == ""
        until(lambda: peer.heard)
        assert all(each["port"] is None for each in peer.heard)


def test_one_node_with_two_addresses_is_one_member(manifest: Manifest) -> None:
    with (
        HostilePeer(manifest, node="ab" * 16) as one,
        HostilePeer(manifest, node="ab" * 16, host="127.0.0.2") as same,
        Around(one.address, same.address) as around,
    ):
        for each in (one, same):
            each.tell(wants=["model"])
        told = around.began(manifest)
        until(lambda: told.others)
        until(lambda: one.asked["node"] and same.asked["node"])
        until(lambda: list(told.others) == [one.address])
        until(lambda: list(told.held) == [one.address])


def test_what_this_node_wants_and_takes_is_kept_current(manifest: Manifest) -> None:
    with HostilePeer(manifest) as peer, Around(peer.address, share_port=8429) as around:
        told = around.began(manifest, ["vocoder"])
        told.has_origin, told.under_way = True, {0: 5, 1: 9}
        wanted = Want(manifest.id, ("vocoder",), True, ((4, 5), (0, 9)))
        until(lambda: around.call(lambda: around.wants.of(manifest.id)) == wanted)
        until(lambda: any(each["wants"] for each in peer.heard))
        said = next(each["wants"] for each in reversed(peer.heard) if each["wants"])
        assert said[0]["manifest"] == manifest.hex_id
        around.join(manifest).ended(told)
        until(lambda: around.call(lambda: around.wants.of(manifest.id)) is None)


def test_a_serve_on_this_store_is_told_what_is_taken_here_and_announced_in_our_place(
    manifest: Manifest,
) -> None:
    with HostilePeer() as serve, HostilePeer(manifest) as peer:
        through = Address("127.0.0.1", serve.port)
        with Around(peer.address, store=serve.store, speak_through=through) as around:
            told = around.began(manifest)
            told.under_way = {2: 77}
            until(
                lambda: any(each["wants"] and each["wants"][0]["taking"] == [[2, 77]] for each in serve.heard)
            )
            until(lambda: peer.heard)
            assert peer.heard[-1]["port"] == serve.port
            until(lambda: told.me == f"127.0.0.1:{serve.port}")
            assert not serve.asked["have"]


def test_the_linger_ends_when_nobody_known_is_incomplete(manifest: Manifest) -> None:
    with HostilePeer(manifest, has=Bitmap(6)) as peer, Around(peer.address) as around:
        peer.tell(wants=["model"])
        told = around.began(manifest)
        until(lambda: told.others)
        around.join(manifest).ended(told)
        heard: list[list[str]] = []
        started_at = time.monotonic()
        around.run(around.it.wait_for_incomplete(0.6, lambda left: heard.append(list(left))))
        assert time.monotonic() - started_at >= 0.6
        assert heard == [[peer.address]]
        peer.tell(wants=None)
        until(lambda: not around.call(around.it.incomplete))
        around.run(around.it.wait_for_incomplete(60.0))


def test_once_nobody_is_found_the_session_waits_for_nobody(manifest: Manifest) -> None:
    with Around() as around:
        told = around.began(manifest)
        until(lambda: not told.expecting)


def test_who_was_named_is_waited_for_and_listened_to_when_it_comes(manifest: Manifest) -> None:
    with HostilePeer(manifest) as gone:
        pass
    with Around(gone.address) as around:
        told = around.began(manifest)
        until(lambda: around.call(lambda: not around.it.is_looking()))
        assert told.expecting
        with HostilePeer(manifest, port=gone.port):
            until(lambda: told.held)


def test_a_full_node_is_asked_again_later_and_not_counted_as_gone(manifest: Manifest) -> None:
    async def full(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        if peer.asked["have"] > 2:
            del peer.script["have"]
        return web.json_response({"error": "full"}, status=503, headers={"Retry-After": "0"})

    with HostilePeer(manifest, script={"have": full}) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        until(lambda: told.held)
        assert peer.asked["have"] < 8


def test_a_session_of_very_many_chunks_is_numbered_aside(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "_THREAD_FROM_CHUNKS", 2)
    with HostilePeer(manifest) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        assert until(lambda: told.held) == {peer.address: set(range(6))}
        until(lambda: around.call(lambda: around.wants.of(manifest.id)))
        short = Told(manifest)
        around.join(manifest).began(short)
        around.join(manifest).ended(short)
        around.join(manifest).ended(told)
        until(lambda: not around.call(lambda: around.wants.of(manifest.id)))


def test_who_says_that_it_fetches_this_is_asked_for_its_bitmap_at_once(manifest: Manifest) -> None:
    """It did not know the manifest when it was asked first: else nobody would notice for half a minute that it does,
    nor that it is gone."""

    async def unknown(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        return web.json_response({"error": "not here"}, status=404)

    with HostilePeer(manifest, script={"have": unknown}) as peer, Around(peer.address) as around:
        around.began(manifest)
        until(lambda: peer.asked["digests"])
        want = Want(manifest.id, ("model",), False)
        around.call(lambda: around.roster.announced("127.0.0.1", peer.port, peer.node, peer.store, [want]))
        asked = peer.asked["have"]
        until(lambda: peer.asked["have"] > asked, 5.0)


def test_a_fault_of_our_own_does_not_end_the_listening(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with HostilePeer(manifest, has=Bitmap(6, [0])) as peer, Around(peer.address) as around:
        told = around.began(manifest)
        until(lambda: told.held.get(peer.address) == {0})
        gains = Told.gains
        failed: list[int] = []

        def fail_once(self: Told, number: int, items: Iterable[int]) -> None:
            if not failed:
                failed.append(number)
                raise KeyError("a fault")
            gains(self, number, items)

        monkeypatch.setattr(Told, "gains", fail_once)
        peer.tell(1)
        until(lambda: told.held.get(peer.address) == {0, 1})
    assert failed
    assert "listening to" in caplog.text
