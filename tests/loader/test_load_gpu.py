"""CUDA itself; the same pipeline runs without it in test_queued_device."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from diachunk.api.loading.load import load, load_into, stream
from diachunk.api.loading.options import Verify
from diachunk.errors import IntegrityError, LoadError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader.cuda import CudaQueues
from diachunk.loader.queued import Queues
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.queues_contract import QueuesContract
from fixtures.tensors import assert_same, blob_of, pth, safetensors, stored, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
_Stream: Any = torch.cuda.Stream
FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}


class TestCudaQueues(QueuesContract):
    def make_queues(self) -> Queues:
        return CudaQueues(torch.device("cuda"))


class TestCudaQueuesOfTheLastDevice(QueuesContract):
    def make_queues(self) -> Queues:
        return CudaQueues(torch.device("cuda", torch.cuda.device_count() - 1))


def large() -> dict[str, torch.Tensor]:
    return {**weights(), **{f"big.{number}": torch.randn(4000, 2000) for number in range(8)}}


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(large()), FILES["vocoder"]: pth(large())}
    return stored(tmp_path / "files", home, files)


@pytest.mark.parametrize("component", FILES)
@pytest.mark.parametrize("verify", ["stamp", "always"])
@pytest.mark.parametrize("dtype", [None, "bf16", "fp16"])
def test_the_device_gets_what_the_host_gets(
    held: Checkpoint, home: Path, component: str, verify: Verify, dtype: str | None
) -> None:
    wanted = load(held.target, component, home=home, verify="always", dtype=dtype)
    for _ in range(3):
        found = load(held.target, component, "cuda", dtype, home=home, verify=verify)
        assert all(tensor.is_cuda for tensor in found.values())
        assert_same({name: tensor.cpu() for name, tensor in found.items()}, wanted)


def test_tensors_are_ready_on_the_callers_stream(held: Checkpoint, home: Path) -> None:
    wanted = {
        name: tensor.float().sum()
        for name, tensor in load(held.target, "model", home=home).items()
        if name[:3] == "big"
    }
    with torch.cuda.stream(_Stream()):
        for name, tensor in stream(held.target, "model", device="cuda", home=home, verify="always"):
            if name in wanted:
                assert torch.allclose(tensor.float().sum().cpu(), wanted[name], rtol=1e-3, atol=1.0)


def test_host_memory_is_pinned_buffers_alone(held: Checkpoint, home: Path) -> None:
    report = load(held.target, "model", "cuda", "bf16", home=home, verify="always").report
    assert report.device_peak_bytes >= report.result_bytes
    assert report.host_peak_bytes - report.host_before_bytes <= 2 * report.lanes * CHUNK_BYTES + 512 * MiB


def test_a_meta_module_ends_up_on_the_device(held: Checkpoint, home: Path) -> None:
    module = torch.nn.Module()
    module.register_parameter("w", torch.nn.Parameter(torch.empty(4000, 2000, device="meta")))
    load_into(module, held.target, "model", device="cuda", home=home, rename={"big.0": "w"}, tensors="big.0")
    assert module.get_parameter("w").is_cuda


def test_damage_and_lack_of_room_free_the_device(held: Checkpoint, home: Path) -> None:
    before = torch.cuda.memory_allocated()
    with pytest.raises(LoadError, match="no cuda:99"):
        load(held.target, "model", "cuda:99", home=home)
    damage.flip(blob_of(held, home, FILES["model"]), 20 * MiB)
    with pytest.raises(IntegrityError):
        load(held.target, "model", "cuda", home=home)
    gc.collect()
    assert torch.cuda.memory_allocated() == before
