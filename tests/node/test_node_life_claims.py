"""One serve a store: who holds it, how others find it, and which port it gets."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from diachunk.errors import StoreError, UsageError
from diachunk.node.lifetime import already_served, claim, running
from diachunk.node.ports import PortTaken, listen
from diachunk.store.layout import Layout

NODE = "5" * 32


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.open(tmp_path / "store")


def test_a_store_is_claimed_once_and_found_by_others_until_it_is_released(layout: Layout) -> None:
    assert running(layout) is None
    first = claim(layout)
    assert first is not None
    first.tell(8421, NODE)
    found = running(layout)
    assert found is not None
    assert (found.port, found.pid, found.node) == (8421, os.getpid(), NODE)
    assert claim(layout) is None
    error = already_served(layout)
    assert error.exit_code == 6
    assert f"by process {os.getpid()} on port 8421" in error.message
    first.release()
    first.release()
    assert running(layout) is None
    second = claim(layout)
    assert second is not None
    second.release()


def test_a_killed_serve_leaves_nothing_that_looks_alive(layout: Layout) -> None:
    (layout.root / "node.json").write_text(json.dumps({"port": 8420, "pid": 1, "node": NODE}))
    assert running(layout) is None
    again = claim(layout)
    assert again is not None
    again.release()


def _hold(root: Path, told: Connection) -> None:
    held = claim(Layout.open(root))
    assert held is not None
    held.tell(8429, NODE)
    told.send(True)
    told.recv()
    os._exit(1)  # as a killed one: nothing is tidied up


def test_another_process_sees_the_claim_and_its_end(layout: Layout) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(layout.root, theirs))
    process.start()
    assert ours.recv()
    found = running(layout)
    assert found is not None
    assert (found.port, found.pid) == (8429, process.pid)
    assert claim(layout) is None
    ours.send(True)
    process.join(10)
    assert running(layout) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 2000,
        '{"port": true, "pid": 1, "node": "NODE"}',
        '{"port": 99999, "pid": 1, "node": "NODE"}',
        '{"port": 8420, "pid": -1, "node": "NODE"}',
        '{"port": 8420, "pid": 1, "node": "\\u001b[2J"}',
        '{"port": 8420, "pid": 1, "node": ["NODE"]}',
    ],
)
def test_a_claim_that_says_nonsense_says_nothing(layout: Layout, text: str) -> None:
    held = claim(layout)
    assert held is not None
    (layout.root / "node.json").write_text(text.replace("NODE", NODE))
    found = running(layout)
    assert found is not None
    assert (found.port, found.node) == (0, "")
    assert already_served(layout).message == f"the store {layout.root} is served already"
    held.release()


def test_a_link_in_the_place_of_the_claim_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (layout.root / "node.json").symlink_to(precious)
    with pytest.raises(StoreError):
        claim(layout)
    assert running(layout) is None
    assert precious.read_text() == "keep"


def test_the_first_free_port_is_taken_and_a_taken_one_is_named() -> None:
    (holder,) = listen("127.0.0.1", [0])
    port = holder.getsockname()[1]
    with holder:
        (next_one,) = listen("127.0.0.1", [port, 0])
        with next_one:
            assert next_one.getsockname()[1] not in (0, port)
        with pytest.raises(PortTaken) as caught:
            listen("127.0.0.1", [port])
    assert caught.value.port == port
    assert caught.value.exit_code == 2


def test_all_addresses_are_one_port_for_both_families() -> None:
    sockets = listen("", [0])
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        families = {each.family for each in sockets}
        assert socket.AF_INET in families
        port = sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    finally:
        for each in sockets:
            each.close()


def test_an_address_of_another_machine_and_a_name_of_none_are_refused() -> None:
    with pytest.raises(UsageError, match="no address of this machine"):
        listen("192.0.2.1", [0])
    with pytest.raises(UsageError, match="no such host"):
        listen("no such host.invalid", [0])
