"""Loads that are interrupted, run out of memory, or meet each other: all is released, and the error is clear."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from diachunk.api.loading.load import load, stream
from diachunk.errors import Interrupted
from diachunk.limits import MiB
from diachunk.loader.events import LoadEvent, LoadPlan, LoadProgress
from diachunk.store.layout import Layout
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.load_attack import stamp_of
from fixtures.load_ends import nothing_left
from fixtures.tensors import assert_same, blob_of, pth, safetensors, stored, weights

__all__ = ["nothing_left"]

HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}
EACH_FORMAT = pytest.mark.parametrize("component", FILES)


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(weights()), FILES["vocoder"]: pth(weights())}
    return stored(tmp_path / "files", home, files)


# --- interruptions, and memory -----------------------------------------------------------------------------------


class Stop(Exception):
    pass


@EACH_FORMAT
@pytest.mark.parametrize("raised", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("after", [LoadPlan, LoadProgress])
def test_an_interrupted_load_leaves_nothing(
    held: Checkpoint, home: Path, component: str, raised: type[BaseException], after: type
) -> None:
    """See `nothing_left`."""

    def listen(event: LoadEvent) -> None:
        if isinstance(event, after):
            raise raised

    with pytest.raises(Interrupted if raised is KeyboardInterrupt else raised):
        load(held.target, component, home=home, verify="always", progress=listen)
    assert_same(load(held.target, component, home=home), weights())


LIMITED = """
import resource, sys, threading
import torch
from diachunk.api.loading.load import load
from diachunk.errors import DiachunkError
target, home, spare = sys.argv[1], sys.argv[2], int(sys.argv[3])
load(target, home=home, verify="always", tensors="small")
from diachunk.loader import job, plan, device, memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
plan.check_room.__globals__["available_bytes"] = lambda: None
device.available_bytes = lambda: None
resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
try:
    load(target, home=home, verify="always")
    print("loaded")
except DiachunkError as error:
    print(type(error).__name__, error.message)
print([each.name for each in threading.enumerate()])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS means something on Linux alone")
@pytest.mark.parametrize("spare_mib", [1, 40])
def test_running_out_of_address_space_is_a_clear_error(tmp_path: Path, home: Path, spare_mib: int) -> None:
    tensors = {"big": torch.zeros(20 * MiB), "small": torch.ones(3)}
    held = stored(tmp_path / "files", home, {"m/w.safetensors": safetensors(tensors)})
    words = [sys.executable, "-c", LIMITED, held.target, str(home), str(spare_mib * MiB)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    said, left = done.stdout.splitlines()
    assert said.startswith(("LoadError", "StoreError")), said
    assert left == "['MainThread']"


def test_two_loads_at_once_give_the_same(held: Checkpoint, home: Path) -> None:
    found: list[object] = []

    def one(options: dict[str, Any]) -> None:
        try:
            found.append(dict(load(held.target, "model", home=home, **options)))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            found.append(error)

    stamp_of(blob_of(held, home, FILES["model"])).unlink()
    ways = [{}, {"verify": "always"}, {}, {"repair": True}]
    threads = [threading.Thread(target=one, args=(options,)) for options in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    for each in found:
        assert isinstance(each, dict), each
        assert_same(each, weights())


@EACH_FORMAT
@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"verify": "always"}], ids=str)
def test_told_bytes_add_up_also_when_something_is_mended(
    held: Checkpoint, home: Path, component: str, options: dict[str, Any]
) -> None:
    events: list[LoadEvent] = []
    damage.flip(blob_of(held, home, FILES[component]), 2 * MiB)
    loaded = load(
        held.target,
        component,
        home=home,
        repair=True,
        origins=[str(held.root)],
        progress=events.append,
        **options,
    )
    assert loaded.report.repaired
    plan = next(each for each in events if isinstance(each, LoadPlan))
    assert sum(each.bytes for each in events if isinstance(each, LoadProgress)) == plan.total_bytes


def test_mending_while_another_holds_the_partial(held: Checkpoint, home: Path) -> None:
    """Locks only save work: who holds one and does nothing stops nobody."""
    path = blob_of(held, home, FILES["model"])
    damage.flip(path, 2 * MiB)
    entry = held.manifest.components[0].files[0]
    partial = Layout.open(home).partial(entry.blake3, entry.chunks.id)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(partial)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        loaded = load(held.target, "model", home=home, repair=True, origins=[str(held.root)], patience_s=3)
        assert_same(loaded, weights())
    finally:
        holder.communicate()


def test_a_legacy_pickle_is_accounted_for(tmp_path: Path, home: Path) -> None:
    data = pth({"a": torch.ones(1000)}, _use_new_zipfile_serialization=False)
    held = stored(tmp_path / "files", home, {"m/w.pth": data})
    assert load(held.target, home=home, allow_code=True).report.result_bytes == 4000


def test_a_stream_that_is_never_taken_leaves_nothing(held: Checkpoint, home: Path) -> None:
    """See `nothing_left`."""
    stream(held.target, "model", home=home, verify="always").close()
    running = stream(held.target, "model", home=home, verify="always")
    next(iter(running))
    running.close()
    running.close()
    with pytest.raises(Interrupted):
        next(iter(running))
