"""A node behind plain calls: it comes up, answers, ends in time, and never takes a fetch down with it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.config import Config
from diachunk.errors import DiachunkError, StoreError
from diachunk.node import life as life_module
from diachunk.node.node import Node
from diachunk.node.settings import NodeSettings
from diachunk.transfer.company import Company
from diachunk.transfer.progress import Event, Notice
from fixtures.checkpoints import Checkpoint, assert_same_files, make_small
from fixtures.settings import clean_environment


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_small(tmp_path_factory.mktemp("life") / "small")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def served(small: Checkpoint, tmp_path: Path) -> Iterator[diachunk.Serving]:
    home = tmp_path / "served"
    parts = [f"{each}={small.root / each}" for each in ("model", "vocoder")]
    diachunk.publish(parts, name="lab/small", home=home)
    with diachunk.serve(host="127.0.0.1", port=0, discover=False, home=home) as serving:
        yield serving


class Listening:
    """A company of which only what it is told of more sources counts."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.heard = threading.Event()

    def expects_more(self, wanted: bool) -> None:
        self.told.append(wanted)
        self.heard.set()


def node_of(home: Path, listener: Any = lambda event: None, **settings: Any) -> Node:
    given = {"host": "127.0.0.1", "ports": (0,), "discover": False, **settings}
    return Node(NodeSettings(**given), Context(Config(home)).store, (), listener)


def test_a_named_machine_gives_the_name_the_manifest_and_the_bytes(
    served: diachunk.Serving, small: Checkpoint, tmp_path: Path
) -> None:
    there = f"127.0.0.1:{served.port}"
    snapshot = diachunk.fetch("lab/small", peers=there, home=tmp_path / "store")
    assert_same_files(snapshot.directory, small)
    gave = [each.label for each in snapshot.report.sources if each.verified_bytes]
    assert gave == [there]


def test_a_library_call_opens_no_port_unless_it_is_asked_to(
    served: diachunk.Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    listen = socket.socket.listen

    def counted(self: socket.socket, backlog: int) -> None:
        asked.append(backlog)
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", counted)
    there = f"127.0.0.1:{served.port}"
    diachunk.fetch("lab/small", peers=[there], home=tmp_path / "store")
    assert not asked
    diachunk.fetch("lab/small", peers=[there], share=True, linger_s=0, home=tmp_path / "other")
    assert asked


def test_what_a_node_shows_of_itself_and_of_others(served: diachunk.Serving, tmp_path: Path) -> None:
    (held,) = served.holdings()
    assert held.complete
    (there,) = diachunk.peers([f"127.0.0.1:{served.port}"], discover=False, home=tmp_path / "store")
    assert (there.how, there.trouble) == ("named", "")
    assert [each.id for each in there.holdings] == [held.id]


def test_a_node_that_cannot_come_up_is_a_notice_and_the_session_waits_for_nobody(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object) -> None:
        raise RuntimeError("no event loops today")

    monkeypatch.setattr(life_module, "Life", fail)
    heard: list[Event] = []
    node = node_of(tmp_path / "store", heard.append)
    node.open()
    company = Listening()
    swarm = node.join(small.manifest)
    swarm.began(cast(Company, company))
    assert company.heard.wait(10)
    assert company.told == [False]
    swarm.ended(cast(Company, company))
    assert heard == [Notice("no company of other machines: RuntimeError: no event loops today")]
    assert node.peers() == []
    node.linger(60.0)
    node.close()
    # and a fetch, from its other sources
    snapshot = diachunk.fetch(
        small.manifest_file, origins=[str(small.root)], share=True, discover=False, home=tmp_path / "store"
    )
    assert_same_files(snapshot.directory, small)


def test_it_ends_in_time_whatever_it_was_doing(small: Checkpoint, tmp_path: Path) -> None:
    began_at = time.monotonic()
    never_started = node_of(tmp_path / "store")
    never_started.open()
    never_started.close()
    just_started = node_of(tmp_path / "store")
    just_started.open()
    just_started.start(at_once=True)
    just_started.close()
    just_started.close()
    assert just_started.peers() == []
    up = node_of(tmp_path / "store")
    up.open()
    up.join(small.manifest)
    assert up.wait_up()
    assert up.is_alive()
    up.close()
    assert not up.is_up
    assert time.monotonic() - began_at < 15
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", up.port or 0), timeout=5)


def test_a_store_is_served_once_and_a_fetch_beside_it_opens_no_port(
    served: diachunk.Serving,
) -> None:
    home = served.context.config.home
    with pytest.raises(StoreError, match="is served already"):
        diachunk.serve(host="127.0.0.1", port=0, discover=False, home=home)
    beside = node_of(home)
    beside.open()
    assert beside.port is None
    assert beside.speaks_through is not None
    assert beside.speaks_through.port == served.port
    beside.close()
    served.close()
    alone = node_of(home)
    alone.open()
    assert alone.speaks_through is None
    assert alone.port
    alone.close()


def test_a_serve_that_cannot_start_says_so_and_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*rest: object) -> None:
        raise RuntimeError("no event loops today")

    with monkeypatch.context() as patched:
        patched.setattr(life_module, "Life", fail)
        with pytest.raises(DiachunkError, match="cannot serve: RuntimeError: no event loops today"):
            diachunk.serve(host="127.0.0.1", port=0, discover=False, home=tmp_path / "store")
    with diachunk.serve(host="127.0.0.1", port=0, discover=False, home=tmp_path / "store") as again:
        assert again.is_alive
