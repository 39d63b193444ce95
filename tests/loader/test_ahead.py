"""Mapped pages are brought while headers are read: only what is mapped anyway, and nothing goes wrong by it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from diachunk.api.loading.access import safe_open
from diachunk.api.loading.load import load
from diachunk.errors import StoreError
from diachunk.limits import MiB
from diachunk.loader import ahead
from diachunk.loader.ahead import Ahead
from diachunk.loader.blob import Blob
from diachunk.manifest.model import ChunkList
from diachunk.schedule.work import BlobFacts
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import safetensors, stored, weights

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="reads /proc; needs a second core"
)
WAIT_S = 10.0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pages of each step."""
    steps: list[int] = []
    touch = ahead._touch

    def step(pages: torch.Tensor) -> None:
        steps.append(len(pages))
        touch(pages)

    monkeypatch.setattr(ahead, "_touch", step)
    return steps


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    return stored(tmp_path / "files", home, {"model/model.safetensors": safetensors(weights())})


def blob_of(path: Path, size: int, *, mappable: bool = True) -> Blob:
    path.write_bytes(os.urandom(MiB) * (size // MiB))
    return Blob(BlobFacts(bytes(32), size, ChunkList(b"", []), "", "f"), path, mappable=mappable)  # type: ignore[arg-type] # no chunk is looked at


def wait_for(condition: object) -> None:
    until = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < until:  # type: ignore[operator] # a lambda
        time.sleep(0.005)
    assert condition()  # type: ignore[operator] # as above


def resident_bytes(blob: Blob) -> int:
    """Of the mapped file, what this process has in its page table."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(blob.window()))
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{start:x}-"):
            return next(int(each.split()[1]) * 1024 for each in lines if each.startswith("Rss:"))
    return 0


def test_pages_of_a_file_are_there_before_anybody_touches_them(tmp_path: Path) -> None:
    blob = blob_of(tmp_path / "f", 8 * MiB)
    one = Ahead()
    try:
        assert resident_bytes(blob) == 0
        one.follow(blob)
        wait_for(lambda: resident_bytes(blob) > 7 * MiB)
    finally:
        one.stop()
        blob.close()


def test_a_file_cut_short_before_it_is_mapped_is_an_error_in_a_line(tmp_path: Path) -> None:
    blob = blob_of(tmp_path / "f", 8 * MiB)
    os.truncate(tmp_path / "f", MiB)
    one = Ahead()
    one.follow(blob)
    assert one._thread is None
    with pytest.raises(StoreError, match="cut short"):
        blob.window()
    blob.close()


def test_what_will_not_be_mapped_is_left_alone(tmp_path: Path, asked: list[int]) -> None:
    blob = blob_of(tmp_path / "f", MiB, mappable=False)
    one = Ahead()
    one.follow(blob)
    assert one._thread is None
    one.stop()
    blob.close()


def test_its_thread_ends_with_the_load(held: Checkpoint, home: Path, asked: list[int]) -> None:
    assert load(held.target, home=home).report.mapped_bytes
    wait_for(lambda: not any(each.name == "diachunk-ahead" for each in threading.enumerate()))
    assert sum(asked) <= (held.root / "model/model.safetensors").stat().st_size // (64 * 1024) + 1


def test_what_comes_from_a_slow_disk_is_left_to_whoever_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def slow(pages: torch.Tensor) -> None:
        steps.append(len(pages))
        time.sleep(0.05)

    monkeypatch.setattr(ahead, "_touch", slow)
    blob = blob_of(tmp_path / "f", 32 * MiB)
    one = Ahead()
    one.follow(blob)
    assert one._thread is not None
    one._thread.join(WAIT_S)
    assert steps == [16 * MiB // (64 * 1024)]
    blob.close()


LEFT = """
import os, sys
from diachunk.loader import ahead
from diachunk.loader.blob import Blob
from diachunk.manifest.model import ChunkList
from diachunk.schedule.work import BlobFacts

path, size = sys.argv[1], 1 << 30
with open(path, "wb") as file:
    file.truncate(size)
ahead._WARM_BPS = 1.0
ahead.Ahead().follow(Blob(BlobFacts(bytes(32), size, ChunkList(b"", []), "", "f"), path, mappable=True))
"""


def test_a_program_that_ends_meanwhile_ends_well(tmp_path: Path) -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", LEFT, str(tmp_path / "f")], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("way", ["always", "cast", "some", "by name"])
def test_nothing_is_brought_that_is_not_going_to_be_mapped(
    held: Checkpoint, home: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    followed: list[Blob] = []
    monkeypatch.setattr(Ahead, "follow", lambda self, blob: followed.append(blob))
    if way == "always":
        load(held.target, home=home, verify="always")
        assert not any(blob.mappable for blob in followed)
        return
    if way == "cast":
        load(held.target, home=home, dtype="bf16")
    elif way == "some":
        load(held.target, home=home, tensors="layer.*")
    else:
        with safe_open(held.target, home=home) as file:
            file.get_tensor("layer.weight")
    assert not followed
