"""The synthetic checkpoints: the same bytes everywhere, and files that the real libraries read."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import load_file

from diachunk.testing import containers
from diachunk.testing.checkpoint import (
    DEMO_SCALE,
    LAYOUTS,
    TensorSpec,
    dia_bytes,
    layout,
    main,
    make_dia,
    revise,
    total_bytes,
    write_safetensors,
    write_sharded,
    write_torch_zip,
)
from diachunk.testing.weights import DTYPE_BYTES, tensor_blocks

EVERY_DTYPE = tuple(TensorSpec(f"t.{dtype}", dtype, (3, 5)) for dtype in sorted(DTYPE_BYTES))
SHAPES = (
    TensorSpec("scalar", "F32", ()),
    TensorSpec("empty", "F32", (0, 4)),
    TensorSpec("long", "F32", (600_001,)),
    TensorSpec("cube", "BF16", (2, 3, 5)),
)


def _bytes(spec: TensorSpec, seed: str = "s", generation: int = 0) -> bytes:
    return b"".join(tensor_blocks(spec, seed=seed, generation=generation))


def _digest(*paths: Path) -> str:
    hasher = blake3()
    for path in paths:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_bytes_are_the_same_on_every_machine_and_version(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", EVERY_DTYPE + SHAPES, seed="frozen")
    write_torch_zip(tmp_path / "a.pth", EVERY_DTYPE + SHAPES, seed="frozen")
    assert (
        _digest(tmp_path / "a.safetensors")
        == "30095bc51dc47aaa44c17768f37fb959a66a4a6267d9b1a343987820ea76f5df"
    )
    assert _digest(tmp_path / "a.pth") == "79122425ec0062ec9ee8d7c52f10a2d0def5785584a7cee1a68b63c4af955774"


def test_a_whole_dia_is_the_same_on_every_machine(tmp_path: Path) -> None:
    make_dia(tmp_path, scale=1e-4)
    assert (
        _digest(*sorted(path for path in tmp_path.rglob("*") if path.is_file()))
        == "13752403b6f7a66861faf5da0b48ae048da16ac10aaf8b9332a41bce2c66d871"
    )


def test_every_float32_table_entry_is_pinned() -> None:
    data = _bytes(TensorSpec("w", "F32", (1 << 21,)))
    assert len(np.unique(np.frombuffer(data, "<u4") >> 8)) == 65_536
    assert blake3(data).hexdigest() == "35861d674bc058b8a5de66ae7f2341b4c1feb9fd045d48ffaaeebedef0f01cba"


def test_seed_source_and_generation_each_change_the_values_and_the_name_alone_does_not() -> None:
    spec = TensorSpec("a", "F32", (100,))
    assert _bytes(spec) == _bytes(TensorSpec("renamed", "F32", (100,), source="a"))
    assert _bytes(spec, generation=2) == _bytes(TensorSpec("a", "F32", (100,), generation=2))
    variants = [
        _bytes(spec),
        _bytes(spec, seed="other"),
        _bytes(spec, generation=1),
        _bytes(TensorSpec("b", "F32", (100,))),
    ]
    assert len(set(variants)) == 4


@pytest.mark.parametrize(("dtype", "low_bits"), [("F32", 8), ("BF16", 0), ("F16", 0), ("F64", 0)])
def test_weights_are_normal_with_the_standard_deviation_of_real_ones(dtype: str, low_bits: int) -> None:
    data = bytearray(_bytes(TensorSpec("w", dtype, (400_000,))))
    kinds = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
    values = torch.frombuffer(data, dtype=kinds[dtype]).double()
    assert abs(values.mean().item()) < 2e-4
    assert values.std().item() == pytest.approx(0.02, rel=0.01)
    within_one = (values.abs() < 0.02).double().mean().item()
    assert within_one == pytest.approx(0.6827, abs=0.004)
    if low_bits:
        words = np.frombuffer(data, "<u4") & 0xFF
        assert np.bincount(words, minlength=256).min() > 1200


def test_safetensors_reads_every_tensor_as_it_was_generated(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, EVERY_DTYPE + SHAPES, seed="s", generation=3, metadata={"format": "pt"})
    loaded = load_file(path)
    assert set(loaded) == {spec.name for spec in EVERY_DTYPE + SHAPES}
    for spec in EVERY_DTYPE + SHAPES:
        assert tuple(loaded[spec.name].shape) == spec.shape
        assert _tensor_bytes(loaded[spec.name]) == _bytes(spec, generation=3)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_the_pth_under_weights_only(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "a.pth"
    write_torch_zip(path, EVERY_DTYPE + SHAPES, seed="s", generation=1)
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert list(loaded) == [spec.name for spec in EVERY_DTYPE + SHAPES]
    for spec in EVERY_DTYPE + SHAPES:
        assert tuple(loaded[spec.name].shape) == spec.shape
        assert _tensor_bytes(loaded[spec.name]) == _bytes(spec, generation=1)


def test_pth_entries_are_aligned_and_their_crcs_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_torch_zip(path, EVERY_DTYPE + SHAPES, seed="s")
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for start in (info.header_offset for info in archive.infolist()):
            name_bytes, extra_bytes = struct.unpack_from("<HH", data, start + 26)
            assert (start + 30 + name_bytes + extra_bytes) % 64 == 0


def test_pth_over_four_gigabytes_has_zip64_records_that_torch_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_UINT32_MAX", 3_000_000)  # in place of a file of 4 GiB
    specs = (*SHAPES, TensorSpec("late", "F32", (600_000,)), TensorSpec("last", "U8", (9,)))
    write_torch_zip(tmp_path / "a.pth", specs, seed="s")
    data = (tmp_path / "a.pth").read_bytes()
    assert b"PK\x06\x06" in data
    # what the patched limit wrote as "see the ZIP64 field" has to say so in the format's own word
    (tmp_path / "a.pth").write_bytes(data.replace((3_000_000).to_bytes(4, "little"), b"\xff" * 4))
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert _tensor_bytes(loaded["last"]) == _bytes(specs[-1])
    assert _tensor_bytes(loaded["late"]) == _bytes(specs[-2])


def test_both_containers_hold_the_same_values(tmp_path: Path) -> None:
    specs = layout("dac_native", scale=1e-4)
    write_safetensors(tmp_path / "a.safetensors", specs, seed="s")
    write_torch_zip(tmp_path / "a.pth", specs, seed="s")
    ours, theirs = load_file(tmp_path / "a.safetensors"), torch.load(tmp_path / "a.pth", weights_only=True)
    assert len(ours) == 301
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_layouts_have_the_real_counts_and_bytes() -> None:
    counts = {name: (len(layout(name)), total_bytes(layout(name))) for name in LAYOUTS}
    assert counts == {
        "dia_tf": (335, 6_444_642_304),
        "dia_native": (343, 6_444_642_304),
        "dac_tf": (223, 306_483_108),
        "dac_native": (301, 306_607_560),
    }


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("scale", [0.25, DEMO_SCALE, 0.001])
def test_scale_is_a_fraction_of_the_bytes(name: str, scale: float) -> None:
    full, scaled = layout(name), layout(name, scale=scale)
    assert [spec.name for spec in scaled] == [spec.name for spec in full]
    assert total_bytes(scaled) == pytest.approx(total_bytes(full) * scale, rel=0.15)
    assert all(min(spec.shape) >= 1 for spec in scaled)
    widths = {
        (a, b) for f, s in zip(full, scaled, strict=True) for a, b in zip(f.shape, s.shape, strict=True)
    }
    assert len(widths) == len({a for a, _ in widths})


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan])
def test_a_scale_outside_its_bounds_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        layout("dia_tf", scale=scale)


def test_an_unknown_layout_or_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="no such layout"):
        layout("../dia_tf")
    with pytest.raises(ValueError, match="no such dtype"):
        TensorSpec("a", "F8", (1,))


def test_shards_split_as_the_real_model_does_at_five_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, tuple[int, int]] = {}

    def record(path: Path, specs: list[TensorSpec], **_: object) -> None:
        written[path.name] = (len(specs), total_bytes(specs))

    monkeypatch.setattr(containers, "write_safetensors", record)
    write_sharded(tmp_path, layout("dia_tf"), seed="s", max_shard_bytes=5_000_000_000)
    assert written == {
        "model-00001-of-00002.safetensors": (279, 4_993_011_712),
        "model-00002-of-00002.safetensors": (56, 1_451_630_592),
    }


@pytest.mark.parametrize("scale", [1e-6, 1e-3])
def test_make_dia_gives_two_components_two_shards_and_a_true_index(tmp_path: Path, scale: float) -> None:
    steps: list[int] = []
    make_dia(tmp_path, scale=scale, progress=steps.append)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "model/config.json",
        "model/model-00001-of-00002.safetensors",
        "model/model-00002-of-00002.safetensors",
        "model/model.safetensors.index.json",
        "vocoder/config.json",
        "vocoder/model.safetensors",
    ]
    index = json.loads((tmp_path / "model/model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        assert {name for name, file in index["weight_map"].items() if file == shard} == set(
            load_file(tmp_path / "model" / shard)
        )
    assert index["metadata"]["total_size"] == total_bytes(layout("dia_tf", scale=scale))
    assert sum(steps) == dia_bytes(scale)
    assert "random" in json.loads((tmp_path / "vocoder/config.json").read_text())["note"]


def test_the_demo_checkpoint_is_about_300_megabytes() -> None:
    assert 290e6 < dia_bytes(DEMO_SCALE) < 310e6


def test_revise_renames_all_changes_a_tenth_and_inserts_one(tmp_path: Path) -> None:
    first = layout("dia_tf", scale=0.001)
    second = revise(first)
    write_safetensors(tmp_path / "1.safetensors", first, seed="s")
    write_safetensors(tmp_path / "2.safetensors", second, seed="s")
    old, new = load_file(tmp_path / "1.safetensors"), load_file(tmp_path / "2.safetensors")
    assert len(new) == len(old) + 1
    assert not set(old) & set(new)
    changed = sum(t.nbytes for name, t in old.items() if not torch.equal(t, new["v2." + name]))
    assert 0.09 < changed / total_bytes(first) <= 0.1
    assert new["v2.adapter.weight"].nbytes > 256 * 1024
    assert min(sorted(new)) == "v2.adapter.weight"
    assert revise(first) == second


def test_a_third_version_keeps_what_the_second_kept() -> None:
    first = layout("dac_tf", scale=0.01)
    third = revise(revise(first), prefix="v3.")
    before = {(spec.seed_name, spec.generation) for spec in first}
    kept = [spec for spec in third if (spec.seed_name, spec.generation) in before]
    assert total_bytes(kept) > 0.75 * total_bytes(first)
    assert all(spec.name.startswith("v3.v2.") for spec in kept)


@pytest.mark.parametrize("write", [write_safetensors, write_torch_zip])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, write: object) -> None:
    assert callable(write)
    _bytes(TensorSpec("warm the tables", "F32", (1,)))
    tracemalloc.start()
    try:
        write(tmp_path / "big", [TensorSpec("big", "F32", (12_000_000,))], seed="s")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "big").stat().st_size > 48_000_000
    assert peak_bytes < 8_000_000


def test_command_line_writes_a_checkpoint_and_says_so_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--scale", "1e-4", "--seed", "other"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "random weights" in output.err
    assert json.loads((tmp_path / "model/config.json").read_text())["seed"] == "other"


def test_command_line_refuses_a_scale_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--scale", "2"])
    assert "--scale" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
