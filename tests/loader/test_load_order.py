"""What is loaded while it is fetched is fetched in the order in which it is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from diachunk.api.loading import wishes as load_wishes
from diachunk.api.loading.load import load, stream
from diachunk.api.loading.wishes import Wishes
from diachunk.digest import digest_of
from diachunk.limits import MiB
from diachunk.manifest import ChunkList
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Drip, always
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import assert_same, made, pth, safetensors

LARGE = {f"layer.{number}": torch.randn(1_500_000) for number in range(8)}
MODEL, VOCODER = "model/model.safetensors", "vocoder/w.pth"


@pytest.fixture
def there(tmp_path: Path) -> Checkpoint:
    return made(tmp_path / "files", {MODEL: safetensors(LARGE), VOCODER: pth(LARGE)})


@pytest.fixture
def slow(there: Checkpoint) -> Iterator[BadServer]:
    with BadServer(there.root, always(Drip(8 * MiB))) as server:
        yield server


@pytest.mark.loopback
@pytest.mark.parametrize("component", ["model", "vocoder"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_first_tensor_wanted_comes_long_before_the_last(
    there: Checkpoint, home: Path, slow: BadServer, component: str, backwards: bool
) -> None:
    order = sorted(LARGE, reverse=backwards)
    came: list[tuple[str, float]] = []
    found: dict[str, torch.Tensor] = {}
    started_at = time.monotonic()
    running = stream(there.target, component, home=home, fetch=True, origins=[slow.url], order=order)
    for name, tensor in running:
        came.append((name, time.monotonic() - started_at))
        found[name] = tensor
    assert [name for name, _ in came] == order
    assert_same(found, {name: LARGE[name] for name in order})
    assert came[0][1] < came[-1][1] * 0.6


@pytest.mark.loopback
def test_what_is_not_asked_for_is_fetched_last(there: Checkpoint, home: Path, slow: BadServer) -> None:
    started_at = time.monotonic()
    running = stream(there.target, "model", home=home, fetch=True, origins=[slow.url], tensors="layer.7")
    came_s = 0.0
    for _ in running:
        came_s = time.monotonic() - started_at
    assert came_s < 0.6 * (time.monotonic() - started_at)
    assert_same(load(there.target, "model", home=home), LARGE)


def facts(path: str, sizes: Sequence[int], salt: bytes = b"") -> BlobFacts:
    chunks = ChunkList.of((size, digest_of(salt + bytes([number]))) for number, size in enumerate(sizes))
    return BlobFacts(digest_of(path.encode()), sum(sizes), chunks, "", path, "")


def test_headers_of_every_kind_of_file_come_first() -> None:
    work = WorkList(
        [
            facts("a.safetensors", [70_000, 4 * MiB], b"a"),
            facts("b.pth", [4 * MiB, 96, 4 * MiB, 1600, 4 * MiB, 2 * MiB, 20_000], b"b"),
            facts("c.json", [10], b"c"),
            facts("c.safetensors.index.json", [5], b"d"),
        ]
    )
    asked = list(Wishes()(work, lambda items: None))
    assert asked[0] == 0
    assert set(asked) == {0, 2 + 5, 2 + 6, 2, 2 + 1, 2 + 3, 10}


def test_a_file_of_very_many_small_chunks_comes_in_its_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    work = WorkList([facts("a.pt", [4 * MiB] + [100] * 200 + [4 * MiB])])
    assert len(set(Wishes()(work, lambda items: None))) == 202
    monkeypatch.setattr(load_wishes, "_SMALL_MOST", 199)
    assert set(Wishes()(work, lambda items: None)) == {0, 201}


def test_wishes_reach_the_session_that_runs_and_those_that_come_after() -> None:
    told: list[list[int]] = []
    wishes = Wishes()
    one, other = facts("a.bin.x", [1, 2, 3], b"a"), facts("b.bin.x", [1, 2, 3], b"b")
    wanted = [one.chunks.digest(2), other.chunks.digest(1), one.chunks.digest(0)]

    def hasten(items: Iterable[int]) -> None:
        told.append(list(items))

    assert list(wishes(WorkList([one]), hasten)) == []
    wishes.add(wanted)
    assert told == [[2, 0]]
    assert list(wishes(WorkList([other, one]), hasten)) == [5, 1, 3]
