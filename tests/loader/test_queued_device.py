"""The pipeline that drives CUDA, over a device that does its work as late as it may."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path

import pytest
import torch

from diachunk.api.loading.load import load, stream
from diachunk.errors import IntegrityError, LoadError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader import session
from diachunk.loader.device import Device, Piece
from diachunk.loader.events import LoadPlan
from diachunk.loader.finding import find_device
from diachunk.loader.lanes import lane_count
from diachunk.loader.queued import BUFFERS_A_LANE, Mark, Queue, Queued, Queues
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.fake_device import FakeQueue, FakeQueues
from fixtures.queues_contract import QueuesContract
from fixtures.tensors import assert_same, blob_of, cut_anywhere, pth, safetensors, stored, weights

FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}


def large() -> dict[str, torch.Tensor]:
    return {**weights(), "big": torch.randn(5000, 2000), "wide": torch.randn(3_000_001)}


class TestFakeQueues(QueuesContract):
    def make_queues(self) -> Queues:
        return FakeQueues()


class Forgetful(FakeQueue):
    """Marks what was queued before the last of it."""

    def mark(self) -> Mark:
        last = self.work.pop() if self.work else None
        mark = super().mark()
        self.work += [last] if last is not None else []
        return mark


def test_the_suite_refuses_a_device_whose_marks_come_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    suite, queues = TestFakeQueues(), FakeQueues()
    monkeypatch.setattr(suite, "make_queues", lambda: queues)

    def queue() -> Queue:
        return Forgetful(queues)

    monkeypatch.setattr(queues, "queue", queue)
    with pytest.raises(AssertionError, match="not there after its mark"):
        suite.test_what_was_queued_is_there_after_its_mark_in_order()


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> FakeQueues:
    """What "fake" stands for."""
    fake = FakeQueues()

    def find(given: str | torch.device) -> Device:
        return Queued(fake) if given == "fake" else find_device(given)

    monkeypatch.setattr(session, "find_device", find)
    return fake


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(large()), FILES["vocoder"]: pth(large())}
    return stored(tmp_path / "files", home, files)


@pytest.mark.parametrize("component", FILES)
@pytest.mark.parametrize("dtype", [None, "bf16", "float64"])
@pytest.mark.parametrize("asks_needed", [0, 1, 1_000_000])
def test_a_device_gets_what_the_host_gets(
    held: Checkpoint, home: Path, queues: FakeQueues, component: str, dtype: str | None, asks_needed: int
) -> None:
    queues.asks_needed = asks_needed
    wanted = load(held.target, component, home=home, verify="always", dtype=dtype)
    for verify in ("always", "stamp"):
        found = load(held.target, component, "fake", dtype, home=home, verify=verify)
        assert_same(found, wanted)
    assert found.report.device == "fake:0"


def test_pinned_buffers_are_reused(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    report = load(held.target, "model", "fake", home=home).report
    assert report.read_bytes > 8 * CHUNK_BYTES
    assert 0 < queues.pinned_bytes <= report.lanes * BUFFERS_A_LANE * CHUNK_BYTES
    assert len(queues.queues) <= report.lanes <= lane_count(1000)


def test_a_stream_hands_out_what_the_device_has_finished(
    held: Checkpoint, home: Path, queues: FakeQueues
) -> None:
    queues.asks_needed = 1_000_000
    wanted = load(held.target, "model", home=home)
    found = {name: tensor.clone() for name, tensor in stream(held.target, "model", device="fake", home=home)}
    assert_same(found, wanted)


def test_chunks_that_cut_elements_reach_the_device_whole(
    tmp_path: Path, home: Path, queues: FakeQueues
) -> None:
    sizes = itertools.cycle([70_001, 3, 300_007, 1_000_001])
    held = cut_anywhere(tmp_path / "cut", home, "model.safetensors", safetensors(weights()), sizes)
    for dtype in (None, "bf16"):
        wanted = load(held.target, home=home, dtype=dtype, verify="always")
        assert_same(load(held.target, None, "fake", dtype, home=home, verify="always"), wanted)


def test_what_does_not_fit_on_the_device_is_refused(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    queues.room_bytes = 3 * MiB
    with pytest.raises(LoadError, match=r"needs [\d,]+ bytes of memory on fake:0, 3,145,728 are free"):
        load(held.target, "model", "fake", home=home)
    assert queues.allocated_bytes == 0


def test_room_to_cast_in_on_the_device_counts(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    load(held.target, "model", "fake", "fp16", home=home)
    taken, queues.allocated_bytes = queues.allocated_bytes, 0
    plans: list[object] = []
    load(held.target, "model", "fake", "fp16", home=home, progress=plans.append)
    plan = next(each for each in plans if isinstance(each, LoadPlan))
    assert taken <= plan.result_bytes + plan.staging_bytes
    queues.room_bytes, queues.allocated_bytes = plan.result_bytes, 0
    with pytest.raises(LoadError, match="bytes of memory on fake:0"):
        load(held.target, "model", "fake", "fp16", home=home)
    assert queues.allocated_bytes == 0


def test_running_out_on_the_device_midway(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    queues.room_bytes = 20 * MiB
    queues.tells_room = False  # as where somebody else takes it meanwhile
    with pytest.raises(LoadError, match=r"fake:0 ran out of memory after [\d,]+ of"):
        load(held.target, "model", "fake", home=home)


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_load_that_fails_frees_the_device_while_its_error_is_held(
    held: Checkpoint, home: Path, queues: FakeQueues, dtype: str | None
) -> None:
    damage.flip(blob_of(held, home, FILES["model"]), 20 * MiB)
    with pytest.raises(IntegrityError) as caught:
        load(held.target, "model", "fake", dtype, home=home, verify="always")
    gc.collect()
    assert queues.kept_bytes() == 0
    assert caught.value.hint


def test_a_device_that_breaks_midway_keeps_nothing(
    held: Checkpoint, home: Path, queues: FakeQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = itertools.count()
    own = FakeQueue.copy

    def breaking(self: FakeQueue, source: torch.Tensor, target: torch.Tensor) -> None:
        if next(copies) == 7:
            raise RuntimeError("fake:0 is broken")
        own(self, source, target)

    monkeypatch.setattr(FakeQueue, "copy", breaking)
    with pytest.raises(RuntimeError, match="fake:0 is broken") as caught:
        load(held.target, "model", "fake", "bf16", home=home, verify="always")
    gc.collect()
    assert queues.kept_bytes() == 0
    assert caught.value is not None


def test_what_was_loaded_is_all_that_is_kept(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    loaded = load(held.target, "model", "fake", "bf16", home=home, verify="always")
    gc.collect()
    assert queues.kept_bytes() == sum(each.nbytes for each in loaded.values())


def test_a_dtype_that_the_device_lacks(held: Checkpoint, home: Path, queues: FakeQueues) -> None:
    queues.lacking = {torch.float64}
    with pytest.raises(LoadError, match="fake:0 has no float64"):
        load(held.target, "model", "fake", home=home)
    assert load(held.target, "model", "fake", "fp32", home=home)


def test_running_out_of_pinned_memory(
    held: Checkpoint, home: Path, queues: FakeQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pinned(size: int) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(queues, "pinned", pinned)
    with pytest.raises(LoadError, match=r"ran out of memory after 0 of .*: CUDA error: out of memory"):
        load(held.target, "model", "fake", home=home)


def test_what_the_device_refused_midway_is_not_handed_out(
    held: Checkpoint, home: Path, queues: FakeQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load(held.target, "model", "cpu", "bf16", home=home, verify="always")
    allocate = queues.allocate

    def refusing(elements: int, dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.uint8 and elements > CHUNK_BYTES:  # the room to cast in, asked for last
            raise torch.OutOfMemoryError("fake:0 has no room to allocate")
        return allocate(elements, dtype)

    monkeypatch.setattr(queues, "allocate", refusing)
    found: dict[str, torch.Tensor] = {}
    tensors = stream(held.target, "model", device="fake", dtype="bf16", home=home)
    with pytest.raises(LoadError, match="ran out of memory"):
        found.update((name, tensor.clone()) for name, tensor in tensors)
    assert_same(found, {name: wanted[name] for name in found})


def test_what_was_under_way_when_the_device_refused_is_waited_for() -> None:
    queues = FakeQueues(asks_needed=1_000_000)
    desk = Queued(queues).desk()
    bytes_, floats = queues.allocate(4, torch.uint8), queues.allocate(1, torch.bfloat16)
    desk.buffer()[:8] = bytes(range(8))
    arrived: list[int] = []
    queues.room_bytes = 0
    with pytest.raises(torch.OutOfMemoryError):
        desk.put(
            [Piece(0, 4, torch.uint8, bytes_), Piece(4, 4, torch.float32, floats)], lambda: arrived.append(1)
        )
    desk.settle()
    assert bytes_.tolist() == [0, 1, 2, 3]
    assert not arrived
