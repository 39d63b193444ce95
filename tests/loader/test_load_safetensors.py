"""safetensors onto the CPU: what comes out is what the file holds, however it is verified, cut and cast."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diachunk.api.loading.load import load
from diachunk.api.loading.options import Verify
from diachunk.limits import KiB, MiB
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import assert_same, cut_anywhere, safetensors, stored, weights

FILE = "model/model.safetensors"
EACH_WAY = pytest.mark.parametrize("verify", ["stamp", "always"])


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    return stored(tmp_path / "files", home, {FILE: safetensors(weights(), {"format": "pt", "made": "here"})})


@EACH_WAY
def test_load_gives_what_the_file_holds(held: Checkpoint, home: Path, verify: Verify) -> None:
    loaded = load(held.target, home=home, verify=verify)
    assert_same(loaded, load_file(held.file(FILE)))
    assert loaded.metadata == {"format": "pt", "made": "here"}
    assert len(loaded) == len(weights()) == loaded.report.tensors


def test_always_hashes_every_byte_and_stamp_none(held: Checkpoint, home: Path) -> None:
    always = load(held.target, home=home, verify="always").report
    assert always.verified_bytes == always.read_bytes >= always.total_bytes
    assert always.mapped_bytes == 0
    stamp = load(held.target, home=home).report
    assert stamp.verified_bytes == stamp.read_bytes == 0
    assert stamp.mapped_bytes == stamp.total_bytes


@EACH_WAY
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "float64", torch.float8_e5m2])
def test_floats_are_cast_and_nothing_else(
    held: Checkpoint, home: Path, verify: Verify, dtype: str | torch.dtype
) -> None:
    loaded = load(held.target, home=home, verify=verify, dtype=dtype)
    target = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "float64": torch.float64}
    wanted = target[dtype] if isinstance(dtype, str) else dtype
    own = load_file(held.file(FILE))
    floats = {name: tensor.to(wanted) for name, tensor in own.items() if tensor.is_floating_point()}
    assert_same(loaded, {**own, **floats})
    assert loaded["ids"].dtype == torch.int64
    assert loaded["mask"].dtype == torch.bool
    assert loaded["complex"].dtype == torch.complex64


def test_complex_tensors_are_cast_to_complex_dtypes_alone(held: Checkpoint, home: Path) -> None:
    loaded = load(held.target, home=home, dtype="complex128")
    own = load_file(held.file(FILE))
    assert_same(loaded, {**own, "complex": own["complex"].to(torch.complex128)})


@EACH_WAY
def test_keep_dtype_keeps_what_its_globs_match(held: Checkpoint, home: Path, verify: Verify) -> None:
    loaded = load(held.target, home=home, dtype="bf16", keep_dtype=["*norm*", "half"], verify=verify)
    kept = {name for name, tensor in loaded.items() if tensor.dtype in (torch.float32, torch.float16)}
    assert kept == {"layer.norm.weight", "half"}


@EACH_WAY
def test_only_the_chunks_of_the_tensors_asked_for_are_read(
    held: Checkpoint, home: Path, verify: Verify
) -> None:
    loaded = load(held.target, home=home, tensors=["layer.*", "ids"], verify=verify, dtype="fp16")
    own = load_file(held.file(FILE))
    names = ["layer.weight", "layer.norm.weight", "layer.bias", "ids"]
    cast = {
        name: own[name].to(torch.float16) if own[name].is_floating_point() else own[name] for name in names
    }
    assert_same(loaded, cast)
    assert loaded.report.read_bytes < 2 * MiB
    assert list(load(held.target, home=home, tensors="ids")) == ["ids"]


def test_chunks_that_cut_elements_in_two_are_put_together(tmp_path: Path, home: Path) -> None:
    """A manifest may cut a file as it likes: here through values, headers and small tensors alike."""
    own = weights()
    data = safetensors(own)
    rng = random.Random(3)
    sizes = itertools.chain(
        [7, 1, 2, 3], (rng.choice([1, 3, 5, 1021, 70_001, 300_007]) for _ in itertools.count())
    )
    held = cut_anywhere(tmp_path / "files", home, "model.safetensors", data, sizes)
    assert_same(load(held.target, home=home, verify="always"), own)
    cast = {name: each.to(torch.bfloat16) if each.is_floating_point() else each for name, each in own.items()}
    assert_same(load(held.target, home=home, dtype="bf16", verify="always"), cast)
    assert_same(load(held.target, home=home, dtype="bf16"), cast)


def test_shards_are_one_component(home: Path, tmp_path: Path) -> None:
    files = {
        "model/a-00001-of-00002.safetensors": safetensors({"one": torch.ones(3)}, {"format": "pt"}),
        "model/a-00002-of-00002.safetensors": safetensors({"two": torch.zeros(5)}, {"format": "pt"}),
        "model/extra.safetensors": safetensors({"three": torch.zeros(5)}),
        "model/a.safetensors.index.json": json.dumps(
            {"weight_map": {"one": "a-00001-of-00002.safetensors", "two": "a-00002-of-00002.safetensors"}}
        ).encode(),
    }
    held = stored(tmp_path / "files", home, files)
    loaded = load(held.target, home=home)
    assert_same(loaded, {"one": torch.ones(3), "two": torch.zeros(5)})
    assert loaded.metadata == {"format": "pt"}


def test_a_mapped_tensor_can_be_written_to_and_the_store_stays(held: Checkpoint, home: Path) -> None:
    loaded = load(held.target, home=home)
    before = loaded["embed.weight"].clone()
    loaded["embed.weight"].add_(1)
    assert torch.equal(loaded["embed.weight"], before + 1)
    assert torch.equal(load(held.target, home=home, verify="always")["embed.weight"], before)


def test_tensors_outlive_what_loaded_them(held: Checkpoint, home: Path) -> None:
    tensor = load(held.target, home=home)["layer.weight"]
    assert torch.equal(tensor, weights()["layer.weight"])


def test_an_unverified_copy_is_hashed_and_then_stamped(held: Checkpoint, home: Path) -> None:
    for stamp in (home / "blobs").glob("??/*.stamp"):
        stamp.unlink()
    first = load(held.target, home=home)
    assert_same(first, weights())
    # hashed where it lies: pages of the file, no copies
    assert first.report.verified_bytes >= first.report.total_bytes == first.report.mapped_bytes
    second = load(held.target, home=home).report
    assert (second.verified_bytes, second.mapped_bytes) == (0, first.report.total_bytes)


def test_a_part_that_was_hashed_stamps_nothing(held: Checkpoint, home: Path) -> None:
    for stamp in (home / "blobs").glob("??/*.stamp"):
        stamp.unlink()
    load(held.target, home=home, tensors=["ids"])
    report = load(held.target, home=home).report
    assert report.verified_bytes >= report.total_bytes


def test_a_file_of_many_small_tensors(tmp_path: Path, home: Path) -> None:
    own = {f"t{number:05}": torch.full((number % 50,), float(number)) for number in range(3000)}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    cast = {name: tensor.to(torch.bfloat16) for name, tensor in own.items()}
    assert_same(load(held.target, home=home, verify="always", dtype="bf16"), cast)


def test_a_single_component_need_not_be_named(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {"weights.safetensors": safetensors({"a": torch.ones(70 * KiB)})})
    assert_same(load(held.target, home=home), {"a": torch.ones(70 * KiB)})
    assert_same(load(held.target, "", home=home), {"a": torch.ones(70 * KiB)})
