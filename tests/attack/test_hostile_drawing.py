"""Peers that mean harm to those who draw a recipe: one wasted transfer at most, the right files, and they are named."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

import diachunk
from diachunk.api.context import Context
from diachunk.api.recipes import read_recipe, state
from diachunk.errors import TransferIncomplete
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest.statement import Statement
from diachunk.store.drafts import Draft
from diachunk.testing.servers import Nginx
from diachunk.transfer.session import Outcome, Session
from fixtures.checkpoints import MIB, assert_store_is_right, tree
from fixtures.hostile_peer import Answer, HostilePeer
from fixtures.hub_world import noise, url_recipe
from fixtures.settings import QUICK
from fixtures.watch import Told, Watched, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

FILES: Mapping[str, bytes] = {
    "a.bin": noise("a", 3 * CHUNK_BYTES + 99),
    "b.bin": noise("b", CHUNK_BYTES + 7),
    "c.json": noise("c", 700),
}
SIZE = sum(len(data) for data in FILES.values())
BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 10


class World:
    """An origin, a recipe of what it serves, and what that is under its keys."""

    def __init__(self, directory: Path, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.origin = Nginx(tree(directory / "origin", files), rate_bps=4 * MIB)
        self.recipe = url_recipe(directory / "recipe.toml", self.origin.url, files)
        stated = state(read_recipe(self.recipe), Context.make(directory / "nowhere"))
        self.statement = Statement.of(stated.walk())
        self.blobs = {file.key: files[file.path] for file in self.statement.files}

    def peer(self, **script: Answer) -> HostilePeer:
        return HostilePeer(self.statement, self.blobs, script=script)

    def liar(self, *wrong: str) -> HostilePeer:
        """Has all, and not a byte of these files is right."""
        keys = {file.key for file in self.statement.files if file.path in wrong}
        flip = bytes(value ^ 1 for value in range(256))
        blobs = {key: data.translate(flip) if key in keys else data for key, data in self.blobs.items()}
        return HostilePeer(self.statement, blobs)

    def fetch(self, home: Path, *peers: HostilePeer) -> Watched:
        began_at = time.monotonic()
        done = fetch(self.recipe, home=home, peers=[each.address for each in peers])
        assert time.monotonic() - began_at < BOUND_S
        found = {
            path.name: path.read_bytes() for path in done.snapshot.directory.rglob("*") if path.is_file()
        }
        assert found == self.files
        assert_store_is_right(home)
        assert list((home / "drafts").iterdir()) == []
        return done


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, FILES)
    with made.origin:
        yield made


def notices(told: Told) -> list[str]:
    return [each.text for each in told.events if isinstance(each, diachunk.Notice)]


def given(done: Watched, label: str) -> int:
    return sum(each.verified_bytes for each in done.report.sources if each.label == label)


async def refuses(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
    return web.json_response({"error": "not here"}, status=404)


def test_an_honest_peer_gives_what_upstream_states(world: World, home: Path) -> None:
    with world.peer() as peer:
        done = world.fetch(home, peer)
        assert peer.asked["stated"] > 0
        assert peer.asked["blob"] + peer.asked["chunk"] + peer.asked["digests"] == 0
    assert given(done, peer.address) > 0
    assert done.report.wasted_bytes == 0


def test_a_liar_costs_one_transfer_and_is_named(world: World, home: Path) -> None:
    with world.liar(*FILES) as liar:
        done = world.fetch(home, liar)
    assert 0 < done.report.wasted_bytes <= SIZE
    assert done.report.fetched_bytes <= 2 * SIZE
    told = notices(done.told)
    assert [text for text in told if f"{liar.address} gave pieces of it" in text]
    assert [text for text in told if f"wrong pieces came from peers: {liar.address} " in text]


def test_who_passed_on_right_pieces_is_not_blamed_in_the_end(world: World, home: Path) -> None:
    with world.liar("a.bin") as liar, world.peer() as honest:
        done = world.fetch(home, liar, honest)
    assert done.report.wasted_bytes <= len(FILES["a.bin"]) + CHUNK_BYTES
    blamed = [text for text in notices(done.told) if "wrong pieces" in text]
    assert all(honest.address not in text for text in blamed)
    assert len(blamed) <= 1


def test_a_liar_about_many_files_is_not_asked_for_each(tmp_path: Path, home: Path) -> None:
    """All of a recipe's files come at once; those of the next batch come from upstream alone."""
    world = World(tmp_path, {f"{number:03}.bin": noise(str(number), 5000) for number in range(40)})
    with world.origin, world.liar(*world.files) as liar:
        done = world.fetch(home, liar)
    assert done.report.wasted_bytes <= sum(len(data) for data in world.files.values())
    assert len([text for text in notices(done.told) if "not what" in text]) <= 4


def test_a_bitmap_that_lies_costs_requests_and_no_bytes(world: World, home: Path) -> None:
    with world.peer(stated=refuses) as liar:
        done = world.fetch(home, liar)
    assert done.report.wasted_bytes == 0
    assert liar.asked["stated"] < 60


def test_alone_with_a_liar_it_ends_in_time_and_keeps_nothing_wrong(world: World, home: Path) -> None:
    world.origin.close()
    began_at = time.monotonic()
    with world.liar("a.bin") as liar, pytest.raises(TransferIncomplete) as caught:
        diachunk.fetch(world.recipe, home=home, peers=[liar.address])
    assert time.monotonic() - began_at < 2 * BOUND_S
    assert "a.bin" in caught.value.message
    assert_store_is_right(home)


def test_without_an_origin_peers_that_have_all_are_enough(world: World, home: Path) -> None:
    world.origin.close()
    with world.peer() as one, world.peer() as two:
        world.fetch(home, one, two)


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"[]",
        b'{"manifests": 7}',
        b'{"manifests": ["x"]}',
        b'{"manifests": [' + b'"' + b"0" * 64 + b'"]}',
    ],
)
def test_what_others_say_they_have_of_it_is_read_with_suspicion(
    world: World, home: Path, answer: bytes
) -> None:
    async def says(request: web.Request, peer: HostilePeer) -> web.StreamResponse:
        return web.Response(body=answer)

    with world.peer(statement=says) as liar:
        world.fetch(home, liar)
        assert liar.asked["statement"] == 1


def test_what_is_wrong_is_shown_to_nobody_while_the_others_go_on(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    doubt, run = Draft.doubt, Session.run

    def doubted(draft: Draft) -> None:
        happened.append(draft.path.name.partition(".")[0])
        doubt(draft)

    def ran(session: Session) -> Outcome:
        outcome = run(session)
        happened.append("over")
        return outcome

    monkeypatch.setattr(Draft, "doubt", doubted)
    monkeypatch.setattr(Session, "run", ran)
    with world.liar(*FILES) as liar:
        done = world.fetch(home, liar)
    assert done.report.wasted_bytes > 0
    assert happened.index("over") > 0, "doubted as soon as it was hashed, not once all are here"
    assert happened[0] in {file.key.hex() for file in world.statement.files}
