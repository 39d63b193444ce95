"""Host memory in processes of their own: the result, a buffer a lane, and little besides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diachunk.limits import CHUNK_BYTES, MiB
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import pth, safetensors, stored

SCRIPT = """
import json, sys, threading, torch
from diachunk.api.loading.load import load, stream
from diachunk.loader.memory import own_bytes

target, home, dtype, verify, way = sys.argv[1:]
torch.ones(300_000).to(torch.bfloat16)  # what torch itself sets up at its first cast
before, peak, over = own_bytes(), 0, threading.Event()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

resident_before, resident_peak = resident(), 0

def watch():
    global peak, resident_peak
    while not over.wait(0.001):
        peak = max(peak, own_bytes())
        resident_peak = max(resident_peak, resident())

watcher = threading.Thread(target=watch)
watcher.start()
options = dict(home=home, dtype=dtype or None, verify=verify)
if way == "load":
    loaded = load(target, **options)
    result, lanes = loaded.report.result_bytes, loaded.report.lanes
else:
    running = stream(target, **options)
    for name, tensor in running:
        pass
    result, lanes = 0, running.report.lanes
peak = max(peak, own_bytes())
over.set()
watcher.join()
print(json.dumps([peak - before, result, lanes, resident_peak - resident_before]))
"""
SIZE = 160 * MiB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint, Path]:
    root = tmp_path_factory.mktemp("large")
    tensors = {f"t{number}": torch.randn(SIZE // 4 // 10) for number in range(10)}
    home = root / "store"
    safe = stored(root / "safe", home, {"m.safetensors": safetensors(tensors)}, "lab/safe")
    pickled = stored(root / "pickled", home, {"m.pth": pth(tensors)}, "lab/pickled")
    return safe, pickled, home


def measured(target: str, home: Path, dtype: str, verify: str, way: str) -> tuple[int, int, int, int]:
    command = [sys.executable, "-c", SCRIPT, target, str(home), dtype, verify, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    gained, result, lanes, resident = json.loads(done.stdout)
    return gained, result, lanes, resident


@pytest.mark.parametrize("verify", ["stamp", "always"])
@pytest.mark.parametrize("dtype", ["", "bf16"])
@pytest.mark.parametrize("pickled", [False, True])
def test_memory_is_the_result_and_a_buffer_a_lane(
    large: tuple[Checkpoint, Checkpoint, Path], verify: str, dtype: str, pickled: bool
) -> None:
    safe, other, home = large
    gained, result, lanes, resident = measured(
        (other if pickled else safe).target, home, dtype, verify, "load"
    )
    assert result == (SIZE // 2 if dtype else SIZE)
    if verify == "stamp" and not dtype:
        result = 0  # mapped
    assert gained <= result + 64 * MiB + lanes * CHUNK_BYTES
    # pages of the file count, too: no more of them than of the result, and of a cast none that stay
    assert resident <= (SIZE // 2 if dtype else SIZE) + 64 * MiB + lanes * CHUNK_BYTES


@pytest.mark.parametrize("dtype", ["", "bf16"])
def test_a_stream_takes_no_more_than_runs_ahead(
    large: tuple[Checkpoint, Checkpoint, Path], dtype: str
) -> None:
    safe, _, home = large
    gained, _, lanes, _ = measured(safe.target, home, dtype, "always", "stream")
    # each tensor is let go as soon as the next one comes
    assert gained <= SIZE // 2 + 64 * MiB + lanes * CHUNK_BYTES
