"""One by one: in order, no further ahead than allowed, in `for` and `async for`, stopped at any time."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diachunk.api.loading import stream as load_stream
from diachunk.api.loading.load import (
    LoadDone,
    LoadEvent,
    LoadPlan,
    LoadProgress,
    TensorStream,
    load,
    load_events,
    stream,
)
from diachunk.api.loading.opened import Opened
from diachunk.api.loading.options import LoadSettings, Verify
from diachunk.errors import IntegrityError, Interrupted
from diachunk.limits import MiB
from diachunk.loader import stream as streams
from diachunk.loader.events import LoadListener, silent
from diachunk.loader.lanes import Pipeline
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import assert_same, blob_of, next_tick, safetensors, stored, weights

FILE = "model/model.safetensors"


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    return stored(tmp_path / "files", home, {FILE: safetensors(weights(), {"made": "here"})})


def lanes_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("diachunk-load")]


@pytest.mark.parametrize("verify", ["stamp", "always"])
@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_stream_gives_what_load_gives(
    held: Checkpoint, home: Path, verify: Verify, dtype: str | None
) -> None:
    wanted = load(held.target, home=home, dtype=dtype)
    running = stream(held.target, home=home, dtype=dtype, verify=verify)
    assert running.plan.tensors == len(weights())
    assert_same(dict(running), wanted)
    assert running.metadata == {"made": "here"}
    assert running.report.elapsed_s > 0
    assert lanes_alive() == []


def test_order_is_that_of_the_names_or_the_module(held: Checkpoint, home: Path) -> None:
    order = ["mask", "layer.weight", "absent", "embed.weight"]
    names = [name for name, _ in stream(held.target, home=home, order=order, verify="always")]
    assert names[:3] == ["mask", "layer.weight", "embed.weight"]
    assert sorted(names) == sorted(weights())
    module = nn.Module()
    for name in ("scalar", "brain"):
        module.register_parameter(name, nn.Parameter(torch.ones(1)))
    assert [name for name, _ in stream(held.target, home=home, order=module)][:2] == ["scalar", "brain"]


def test_a_single_name_is_an_order_of_one(held: Checkpoint, home: Path) -> None:
    """A string is a sequence of strings: of its letters, none of which is a tensor."""
    last = [name for name, _ in stream(held.target, home=home)][-1]
    assert next(name for name, _ in stream(held.target, home=home, order=last)) == last


def test_lanes_run_no_further_ahead_than_allowed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor is let go once it was handed out: a checkpoint larger than memory passes through."""
    monkeypatch.setattr(streams, "AHEAD_BYTES", 2 * MiB)
    own = {f"t{number:02}": torch.full((MiB // 4,), float(number)) for number in range(40)}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    most = 0
    landing = None
    running = stream(held.target, home=home, verify="always")
    for number, (name, tensor) in enumerate(running):
        assert name == f"t{number:02}"
        assert torch.equal(tensor, own[name])
        if number == 3:
            threading.Event().wait(0.5)  # a slow taker: the lanes could have read all of it
        landing = running._open()[1]._job.landing
        most = max(most, len(landing._tensors))
    assert landing is not None
    # what is complete, what each lane works on, and one that was just given out
    assert most <= 2 + 3 + 1 + 2
    assert len(own) > 2 * most


def test_a_slow_taker_of_large_tensors_is_no_deadlock(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "AHEAD_BYTES", 1)
    own = {"a": torch.randn(3_000_000), "b": torch.randn(5), "c": torch.randn(2_000_000), "d": torch.randn(7)}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    for order in (None, ["d", "c", "b", "a"]):
        assert_same(dict(stream(held.target, home=home, verify="always", order=order)), own)


def test_a_stream_left_early_ends_its_lanes(held: Checkpoint, home: Path) -> None:
    running = stream(held.target, home=home, verify="always")
    for _ in running:
        break
    running.close()
    assert lanes_alive() == []
    with stream(held.target, home=home, verify="always") as other:
        next(iter(other))
    assert lanes_alive() == []
    dropped = iter(stream(held.target, home=home, verify="always"))
    next(dropped)
    del dropped
    gc.collect()
    assert lanes_alive() == []


def test_async_for_gives_the_same_and_blocks_no_loop(held: Checkpoint, home: Path) -> None:
    async def take() -> dict[str, torch.Tensor]:
        return {name: tensor async for name, tensor in stream(held.target, home=home, verify="always")}

    assert_same(asyncio.run(take()), weights())


@pytest.mark.parametrize("way", ["for", "with"])
def test_opening_blocks_no_loop_either(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """As where the headers, or a recipe, have to be fetched first."""
    may_open, threads = threading.Event(), list[int]()

    class Slow(Opened):
        def __init__(self, *words: Any) -> None:
            threads.append(threading.get_ident())
            assert may_open.wait(10)
            super().__init__(*words)

    monkeypatch.setattr("diachunk.api.loading.stream.Opened", Slow)

    async def take() -> dict[str, torch.Tensor]:
        asyncio.get_running_loop().call_later(0.05, may_open.set)
        running = stream(held.target, home=home, verify="always")
        if way == "for":
            return {name: tensor async for name, tensor in running}
        async with running:
            assert running.plan.tensors == len(weights())
            return {name: tensor async for name, tensor in running}

    assert_same(asyncio.run(take()), weights())
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


def test_one_cancelled_while_it_opens_ends_by_itself(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open, opening, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(Opened):
        def __init__(self, target: Any, component: Any, settings: LoadSettings) -> None:
            opening.set()
            assert may_open.wait(10)
            super().__init__(target, component, settings)
            with pytest.raises(Interrupted):  # as the fetch, which tells what it does
                settings.progress(LoadProgress(0, "model"))

        def close(self) -> None:
            super().close()
            closed.set()

    monkeypatch.setattr("diachunk.api.loading.stream.Opened", Slow)

    async def cancel() -> None:
        async def take() -> None:
            async with stream(held.target, home=home):
                raise AssertionError("it was opened")

        task = asyncio.create_task(take())
        await asyncio.to_thread(opening.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_open.set()
        await asyncio.to_thread(closed.wait, 10)

    asyncio.run(asyncio.wait_for(cancel(), 20))
    assert closed.is_set()
    assert lanes_alive() == []


def test_what_was_opened_for_nobody_any_more_is_closed() -> None:
    closed: list[str] = []

    class Held:
        def __init__(self, name: str) -> None:
            self._name = name

        def stop(self) -> None:
            return

        def close(self) -> None:
            closed.append(self._name)

    def begin(listen: LoadListener) -> Any:
        running.stop()  # as from another thread, once nothing more is told before it is open
        return Held("checkpoint"), Held("lanes")

    running = TensorStream(begin, silent, later=True)
    running._open()
    assert closed == ["lanes", "checkpoint"]


def test_async_with_ends_its_lanes(held: Checkpoint, home: Path) -> None:
    async def take() -> str:
        async with stream(held.target, home=home, verify="always") as running:
            async for name, _ in running:
                return name
        return ""

    assert asyncio.run(take()) in weights()
    assert not [each for each in threading.enumerate() if each.name.startswith("diachunk-load")]


def test_async_for_left_early_ends_its_lanes(held: Checkpoint, home: Path) -> None:
    async def take() -> str:
        running = stream(held.target, home=home, verify="always")
        async for name, _ in running:
            running.close()
            return name
        return ""

    assert asyncio.run(take()) in weights()
    assert lanes_alive() == []


def test_a_cancelled_async_stream_gives_up(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(Pipeline, "_serve", lambda *args: stuck.wait(30))

    async def take() -> None:
        async for _ in stream(held.target, home=home, verify="always", order=["embed.weight"]):
            pass

    complaints: list[object] = []

    async def cancel() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: complaints.append(told))
        task = asyncio.create_task(take())
        await asyncio.sleep(0.3)
        task.cancel()
        threading.Timer(0.3, stuck.set).start()
        with pytest.raises(asyncio.CancelledError):
            await task
        gc.collect()

    asyncio.run(asyncio.wait_for(cancel(), 20))
    assert complaints == []  # as of an exception that nobody looked at, with all its traceback


# --- events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["stamp", "always"])
def test_bytes_told_add_up_to_the_plan(held: Checkpoint, home: Path, verify: Verify) -> None:
    told: list[LoadEvent] = []
    loaded = load(held.target, home=home, verify=verify, progress=told.append)
    plan = next(event for event in told if isinstance(event, LoadPlan))
    assert told[0] is plan
    assert sum(event.bytes for event in told) == plan.total_bytes == loaded.report.total_bytes
    steps = [event for event in told if isinstance(event, LoadProgress)]
    assert sum(event.read_bytes for event in steps) == plan.read_bytes == loaded.report.read_bytes
    assert sum(event.verified_bytes for event in steps) == plan.hashed_bytes == loaded.report.verified_bytes
    assert {event.component for event in steps} == {"model"}
    assert told[-1].bytes == 0


def test_events_come_asynchronously_and_end_with_the_tensors(held: Checkpoint, home: Path) -> None:
    async def follow() -> list[object]:
        return [event async for event in load_events(held.target, home=home, dtype="fp16")]

    events = asyncio.run(follow())
    assert isinstance(events[0], LoadPlan)
    assert isinstance(events[-1], LoadDone)
    assert events[-1].loaded["embed.weight"].dtype == torch.float16


def test_errors_reach_who_awaits(held: Checkpoint, home: Path) -> None:
    next_tick(home)
    damage.flip(blob_of(held, home, FILE), MiB)

    async def follow() -> None:
        async for _ in load_events(held.target, home=home):
            pass

    with pytest.raises(IntegrityError):
        asyncio.run(follow())


def test_the_report_says_where_the_time_went_and_how_much_memory_it_took(tmp_path: Path, home: Path) -> None:
    own = {f"t{number}": torch.randn(2_000_000) for number in range(8)}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    report = load(held.target, home=home, verify="always", dtype="bf16").report
    assert min(report.read_s, report.verify_s, report.cast_s) > 0
    assert report.copy_s == report.network_s == 0
    assert report.lanes > 0
    assert report.result_bytes * 2 == report.total_bytes == 64_000_000
    assert report.host_peak_bytes >= report.host_before_bytes > 0


def test_events_of_a_load_come_from_the_gpu_that_is_current_for_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    entered: list[tuple[str, int]] = []

    def load_with(target: str, component: str | None, settings: LoadSettings) -> object:
        asked.append(settings.device)
        return None

    monkeypatch.setattr(load_stream, "load_with", load_with)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"{threading.get_ident()} {device}")

    @contextmanager
    def on(stream: str) -> Iterator[None]:
        entered.append((stream, threading.get_ident()))
        yield

    monkeypatch.setattr(torch.cuda, "stream", on)

    async def follow(device: str | torch.device) -> None:
        async for _ in load_events("lab/x", device=device):
            pass

    for device in ("cuda", torch.device("cuda"), "auto", "cuda:0", "cpu"):
        asyncio.run(follow(device))
    assert asked == ["cuda:1", "cuda:1", "cuda:1", "cuda:0", "cpu"]
    # ... and on the caller's stream there, though on another thread
    me = threading.get_ident()
    assert [stream for stream, _ in entered] == [f"{me} cuda:1"] * 3 + [f"{me} cuda:0"]
    assert all(thread != me for _, thread in entered)
