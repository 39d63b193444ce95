"""Load while fetching: tensors come as their chunks arrive, the load ends with the fetch, and both end as one."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import diachunk
from diachunk.api.loading.load import LoadEvent, LoadPlan, LoadProgress, load, load_into, stream
from diachunk.errors import LoadError, TransferIncomplete, UsageError
from diachunk.limits import MiB
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Drip, always
from diachunk.testing.hub import Hub
from fixtures import damage
from fixtures.checkpoints import Checkpoint, assert_store_is_right
from fixtures.settings import QUICK, write_config
from fixtures.tensors import assert_same, made, pth, safetensors, weights

pytestmark = pytest.mark.loopback
FILE = "model/model.safetensors"
RATE_BPS = 6 * MiB


def own() -> dict[str, torch.Tensor]:
    """About 16 MB in eight tensors, and the small ones."""
    large = {f"layer.{number}": torch.randn(500_000) for number in range(8)}
    return {**weights(), **large}


TENSORS = own()


@pytest.fixture
def there(tmp_path: Path) -> Checkpoint:
    """Published, but not here."""
    files = {FILE: safetensors(TENSORS), "model/config.json": b"{}", "vocoder/w.pth": pth(weights())}
    return made(tmp_path / "files", files)


@pytest.fixture
def slow(there: Checkpoint) -> Iterator[BadServer]:
    """Takes a few seconds for the model."""
    with BadServer(there.root, always(Drip(RATE_BPS // 2))) as server:
        yield server


def fetch_threads() -> list[str]:
    return [
        each.name
        for each in threading.enumerate()
        if each.name.startswith(("diachunk-fetch", "diachunk-load"))
    ]


def test_without_fetch_nothing_is_asked_for(there: Checkpoint, home: Path, slow: BadServer) -> None:
    with pytest.raises(LoadError, match="is not here"):
        load(there.target, "model", home=home, origins=[slow.url])
    assert slow.body_bytes == 0


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_load_fetches_what_is_not_here(
    there: Checkpoint, home: Path, slow: BadServer, dtype: str | None
) -> None:
    loaded = load(there.target, "model", home=home, fetch=True, origins=[slow.url], dtype=dtype)
    cast = {
        name: tensor.to(torch.bfloat16) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in TENSORS.items()
    }
    assert_same(loaded, cast)
    assert loaded.report.fetched_bytes >= loaded.report.total_bytes
    assert loaded.report.network_s > 0
    assert_store_is_right(home)
    assert fetch_threads() == []
    assert load(there.target, "model", home=home).report.mapped_bytes == loaded.report.total_bytes


def test_a_pickle_is_loaded_while_fetched(there: Checkpoint, home: Path, slow: BadServer) -> None:
    assert_same(load(there.target, "vocoder", home=home, fetch=True, origins=[slow.url]), weights())


def test_tensors_come_before_the_fetch_is_over(there: Checkpoint, home: Path, slow: BadServer) -> None:
    came: list[tuple[str, float]] = []
    started_at = time.monotonic()
    with stream(
        there.target, "model", home=home, fetch=True, origins=[slow.url], order=list(TENSORS)
    ) as running:
        for name, tensor in running:
            came.append((name, time.monotonic() - started_at))
            assert tensor.shape == TENSORS[name].shape
    took_s = time.monotonic() - started_at
    assert [name for name, _ in came] == list(TENSORS)
    # the last ones come at the end, the first ones long before
    assert came[0][1] < took_s * 0.8
    assert came[-1][1] > took_s * 0.5


def test_the_header_of_the_last_shard_is_not_waited_for(tmp_path: Path, home: Path) -> None:
    """Headers are fetched before all else: the first shard's tensors come while the second one is under way."""
    shards = [{f"s{shard}.{number}": torch.randn(500_000) for number in range(4)} for shard in range(2)]
    names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    index = {"weight_map": {name: file for shard, file in zip(shards, names, strict=True) for name in shard}}
    files = {f"model/{file}": safetensors(shard) for shard, file in zip(shards, names, strict=True)}
    there = made(tmp_path / "files", {**files, "model/m.safetensors.index.json": json.dumps(index).encode()})
    came: list[float] = []
    with BadServer(there.root, always(Drip(RATE_BPS // 4))) as server:
        started_at = time.monotonic()
        found = {}
        for name, tensor in stream(there.target, home=home, fetch=True, origins=[server.url]):
            came.append(time.monotonic() - started_at)
            found[name] = tensor
    assert_same(found, shards[0] | shards[1])
    assert came[0] < came[-1] * 0.6


def test_what_is_fetched_and_loaded_is_told_apart(there: Checkpoint, home: Path, slow: BadServer) -> None:
    told: list[LoadEvent] = []
    threads = set()

    def listen(event: LoadEvent) -> None:
        threads.add(threading.current_thread())
        told.append(event)

    load(there.target, "model", home=home, fetch=True, origins=[slow.url], progress=listen)
    plan = next(event for event in told if isinstance(event, LoadPlan))
    steps = [event for event in told if isinstance(event, LoadProgress)]
    size = sum(file.size for part, file in there.manifest.walk() if part.name == "model")
    assert sum(event.fetched_bytes for event in steps) == size
    assert sum(event.bytes for event in told) == plan.total_bytes
    assert threads == {threading.current_thread()}


def test_what_is_half_here_is_resumed_and_loaded(
    there: Checkpoint, home: Path, base: Path, slow: BadServer
) -> None:
    class EnoughError(Exception):
        pass

    done = 0

    def stop(event: diachunk.Event) -> None:
        nonlocal done
        done += event.bytes
        if done > 10 * MiB:
            raise EnoughError

    with pytest.raises(EnoughError):
        diachunk.fetch(there.target, components=["model"], home=home, origins=[slow.url], progress=stop)
    before = slow.body_bytes
    loaded = load(there.target, "model", home=home, fetch=True, origins=[slow.url])
    assert_same(loaded, TENSORS)
    size = sum(file.size for part, file in there.manifest.walk() if part.name == "model")
    assert slow.body_bytes - before < size - 5 * MiB


def test_a_damaged_file_that_is_here_is_mended_on_the_way(there: Checkpoint, home: Path) -> None:
    """Complete but without proof, and wrong: the fetch finds out, the load waits for the good chunk."""
    origin = str(there.root)
    diachunk.fetch(there.target, home=home, origins=[origin])
    blob = max((home / "blobs").glob("??/*"), key=lambda path: path.stat().st_size)
    damage.flip(blob, 5 * MiB)
    blob.with_name(f"{blob.name}.stamp").unlink()
    small = next(file for part, file in there.manifest.walk() if file.path == "config.json")
    (home / "blobs" / small.blake3.hex()[:2] / small.blake3.hex()).unlink()
    assert_same(load(there.target, "model", home=home, fetch=True, origins=[origin]), TENSORS)
    assert_store_is_right(home)


def test_a_fetch_that_fails_ends_the_load_with_its_error(there: Checkpoint, home: Path, base: Path) -> None:
    write_config(base, QUICK)
    gone = there.file(FILE)
    gone.write_bytes(gone.read_bytes()[: 8 * MiB])
    with pytest.raises(TransferIncomplete):
        load(there.target, "model", home=home, fetch=True, origins=[str(there.root)])
    running = stream(there.target, "vocoder", home=home, fetch=True, origins=[str(there.root)])
    assert len(dict(running)) == len(weights())
    assert fetch_threads() == []


def test_a_stream_left_early_stops_the_fetch(there: Checkpoint, home: Path, slow: BadServer) -> None:
    with stream(there.target, "model", home=home, fetch=True, origins=[slow.url]) as running:
        next(iter(running))
    assert fetch_threads() == []
    sent = slow.body_bytes
    assert sent < there.total_bytes
    # nothing that came is lost
    assert_same(load(there.target, "model", home=home, fetch=True, origins=[slow.url]), TENSORS)


def test_async_for_follows_a_fetch(there: Checkpoint, home: Path, slow: BadServer) -> None:
    async def take() -> dict[str, torch.Tensor]:
        running = stream(there.target, "model", home=home, fetch=True, origins=[slow.url])
        return {name: tensor async for name, tensor in running}

    assert_same(asyncio.run(take()), TENSORS)


def test_a_module_is_filled_while_fetched(there: Checkpoint, home: Path, slow: BadServer) -> None:
    module = torch.nn.Module()
    for number in range(8):
        module.register_parameter(str(number), torch.nn.Parameter(torch.empty(500_000, device="meta")))
    names = {f"layer.{number}": str(number) for number in range(8)}
    load_into(
        module,
        there.target,
        "model",
        home=home,
        fetch=True,
        origins=[slow.url],
        rename=names,
        tensors="layer.[0-9]",
    )
    for number in range(8):
        assert torch.equal(module.get_parameter(str(number)), TENSORS[f"layer.{number}"])


def test_a_neighbour_that_fetches_is_followed_too(there: Checkpoint, home: Path, slow: BadServer) -> None:
    """Whose process it is that fills the partial makes no difference."""
    neighbour = threading.Thread(
        target=lambda: diachunk.fetch(there.target, components=["model"], home=home, origins=[slow.url])
    )
    neighbour.start()
    time.sleep(0.7)
    try:
        loaded = load(there.target, "model", home=home, fetch=True, origins=[slow.url])
    finally:
        neighbour.join()
    assert_same(loaded, TENSORS)
    size = sum(file.size for part, file in there.manifest.walk() if part.name == "model")
    assert slow.body_bytes < 1.5 * size


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Hub]]:
    """Of two components, each a repository of its own, as dia-1.6b is. Nobody fetched it yet."""
    file = tmp_path / "lab.toml"
    parts = (f'[[component]]\nname = "{each}"\nhub = "lab/{each}"\n' for each in ("model", "vocoder"))
    file.write_text("".join(['name = "lab/dia"\n', *parts]))
    with Hub() as hub:
        hub.add("lab/model", {"model.safetensors": safetensors(weights())})
        hub.add("lab/vocoder", {"model.safetensors": safetensors({"v": torch.ones(3)})})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield file, hub


def test_a_component_of_a_recipe_is_loaded_though_nothing_of_it_was_fetched_before(
    recipe: tuple[Path, Hub], home: Path
) -> None:
    file, hub = recipe
    assert_same(load(file, "vocoder", home=home, fetch=True), {"v": torch.ones(3)})
    assert not any("lab/model" in each.path for each in hub.requests), "nothing else is fetched"
    asked = len(hub.requests)
    assert_same(load(file, "vocoder", home=home), {"v": torch.ones(3)})
    assert len(hub.requests) == asked
    with pytest.raises(UsageError, match=r"not fetched here yet; of it, lab/dia@main\.vocoder is") as caught:
        load(file, "model", home=home)
    assert f"diachunk fetch {file} --component model" in caught.value.hint
    with pytest.raises(UsageError, match="has several components"):
        load(file, home=home)


def test_every_way_to_load_takes_a_part_and_the_whole_when_it_is_here(
    recipe: tuple[Path, Hub], home: Path
) -> None:
    file, hub = recipe
    assert dict(stream(file, "vocoder", home=home, fetch=True))["v"].shape == (3,)
    whole = diachunk.fetch(file, home=home).manifest
    hub.close()
    module = torch.nn.ParameterDict({"v": torch.nn.Parameter(torch.zeros(3))})
    load_into(module, file, "vocoder", home=home)
    assert torch.equal(module["v"], torch.ones(3))
    diachunk.rm([f"{whole.name}@main.vocoder"], home=home)
    assert_same(load(file, "vocoder", home=home, fetch=True), {"v": torch.ones(3)})


@pytest.mark.parametrize("component", [None, "vocodr"])
def test_a_component_that_a_recipe_lacks_is_told_before_anything_is_fetched(
    recipe: tuple[Path, Hub], home: Path, component: str | None
) -> None:
    file, hub = recipe
    with pytest.raises(UsageError) as caught:
        load(file, component, home=home, fetch=True)
    assert "model, vocoder" in caught.value.hint
    assert not hub.requests
