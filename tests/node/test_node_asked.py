"""What a person gets who names machines: one node is one machine, and who does not answer is named, soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import TransferIncomplete, UsageError
from diachunk.transfer.progress import Notice
from fixtures.checkpoints import Checkpoint, make_small
from fixtures.settings import clean_environment

_SOON_S = 8.0
"""Well under the ten seconds that a silent machine may take for each answer."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_small(tmp_path_factory.mktemp("asked") / "small")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def silent() -> Iterator[str]:
    """A machine that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def _refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("local", [False, True])
def test_a_machine_at_two_addresses_is_one_peer(small: Checkpoint, tmp_path: Path, local: bool) -> None:
    parts = [f"{each}={small.root / each}" for each in ("model", "vocoder")]
    diachunk.publish(parts, name="lab/small", home=tmp_path / "served")
    with diachunk.serve(host="", port=0, discover=False, home=tmp_path / "served") as serving:
        port = serving.port
        with socket.socket(socket.AF_INET6) as probe:
            if probe.connect_ex(("::1", port)):
                pytest.skip("no IPv6 on this machine's loopback")
        both = [f"[::1]:{port}", f"127.0.0.1:{port}"]
        peers = both if local else both[::-1]
        report = diachunk.fetch(small.target, peers=peers, home=tmp_path / "store").report
    assert report.fetched_bytes == sum(each.verified_bytes for each in report.sources)
    assert len(report.sources) == 1


def test_a_silent_machine_keeps_nobody_waiting_who_asks_who_is_there(silent: str, tmp_path: Path) -> None:
    started_at = time.monotonic()
    found = diachunk.peers([silent], discover=False, home=tmp_path / "store")
    assert time.monotonic() - started_at < _SOON_S
    assert [(each.address, each.trouble) for each in found] == [(silent, "no answer yet")]


@pytest.mark.parametrize("target", ["lab/none", "ab" * 32, "ab" * 8])
def test_what_nobody_knows_may_be_known_to_a_named_machine_that_does_not_answer(
    tmp_path: Path, target: str
) -> None:
    gone = _refused()
    with pytest.raises(TransferIncomplete, match=f"; peer {gone}: connection refused") as caught:
        diachunk.fetch(target, peers=gone, home=tmp_path / "store")
    assert caught.value.retryable
    assert "hub:" not in caught.value.hint
    assert "diachunk peers" in caught.value.hint


def test_what_the_named_machines_do_not_know_is_a_mistake(small: Checkpoint, tmp_path: Path) -> None:
    with diachunk.serve(host="127.0.0.1", port=0, discover=False, home=tmp_path / "served") as serving:
        there = f"127.0.0.1:{serving.port}"
        with pytest.raises(UsageError, match=f"lab/none; peer {there}: has none of it"):
            diachunk.fetch("lab/none", peers=there, home=tmp_path / "store")


def test_a_fetch_that_gets_nothing_says_what_the_named_machines_did(
    small: Checkpoint, tmp_path: Path
) -> None:
    gone = _refused()
    with pytest.raises(TransferIncomplete, match=f"peer {gone}: connection refused"):
        diachunk.fetch(small.target, peers=gone, home=tmp_path / "store", patience_s=1.0)


def test_a_named_machine_that_comes_up_late_is_waited_for_and_used(small: Checkpoint, tmp_path: Path) -> None:
    parts = [f"{each}={small.root / each}" for each in ("model", "vocoder")]
    diachunk.publish(parts, name="lab/small", home=tmp_path / "served")
    late = _refused()
    port = int(late.rpartition(":")[2])
    told: list[str] = []
    serving: list[diachunk.Serving] = []

    def listen(event: diachunk.Event) -> None:
        if isinstance(event, Notice) and late in event.text:
            told.append(event.text)
            if not serving:
                serving.append(
                    diachunk.serve(host="127.0.0.1", port=port, discover=False, home=tmp_path / "served")
                )

    try:
        snapshot = diachunk.fetch(small.target, peers=late, home=tmp_path / "store", progress=listen)
    finally:
        for each in serving:
            each.close()
    assert told == [f"waiting for peer {late}: connection refused"]
    assert snapshot.report.fetched_bytes == small.total_bytes
