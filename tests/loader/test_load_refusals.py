"""What cannot be loaded is refused before anything is read, in one line that says what would do."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

import diachunk
from diachunk.api.loading.load import LoadEvent, load, stream
from diachunk.errors import Interrupted, LoadError, UsageError
from diachunk.formats.spans import HEADER_BYTES_MAX
from diachunk.limits import MiB
from diachunk.loader import device as devices
from diachunk.loader import memory
from fixtures.checkpoints import Checkpoint
from fixtures.load_ends import open_files
from fixtures.tensors import blob_of, pth, safetensors, stored, weights
from format_files import entry, safetensors_of

FILE = "model/model.safetensors"


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    return stored(tmp_path / "files", home, {FILE: safetensors(weights()), "vocoder/w.pth": pth(weights())})


def test_several_components_and_none_named_lists_them(held: Checkpoint, home: Path) -> None:
    with pytest.raises(UsageError, match="several components") as caught:
        load(held.target, home=home)
    assert caught.value.hint == "model, vocoder"


def test_an_unknown_component_lists_those_there_are(held: Checkpoint, home: Path) -> None:
    with pytest.raises(UsageError, match="'codec'") as caught:
        load(held.target, "codec", home=home)
    assert "model, vocoder" in caught.value.hint


def test_where_the_only_component_has_no_name_that_is_said(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors(weights()))
    diachunk.publish([file], name="lab/alone", home=home)
    with pytest.raises(UsageError, match="no component 'cpu'") as caught:
        load("lab/alone", "cpu", home=home)  # as who takes the second argument for the device
    assert caught.value.hint == "its only one has no name: leave the component out"


def test_an_unknown_tensor_names_near_ones(held: Checkpoint, home: Path) -> None:
    for wanted in ("layer.wieght", ["embed.*", "layer.wieght"]):
        with pytest.raises(UsageError, match=r"layer\.wieght") as caught:
            load(held.target, "model", home=home, tensors=wanted)
        assert "layer.weight" in caught.value.hint


@pytest.mark.parametrize("dtype", ["int8", "bf17", "bool", "torch", 3, torch.int32, "float4_e2m1fn_x2"])
def test_what_is_no_dtype_for_weights_is_refused(held: Checkpoint, home: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match=r"dtype|cast"):
        load(held.target, "model", home=home, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", ""])
def test_what_is_no_device_is_refused(held: Checkpoint, home: Path, device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        load(held.target, "model", home=home, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(held: Checkpoint, home: Path) -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(LoadError, match=f"no {device} here") as caught:
            load(held.target, "model", home=home, device=device)
        assert "auto" in caught.value.hint


def test_a_dtype_that_the_device_lacks_is_refused(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.Host, "lacks", lambda self, dtype: dtype is torch.float64)
    with pytest.raises(LoadError, match="cpu has no float64"):
        load(held.target, "model", home=home)
    assert load(held.target, "model", home=home, tensors="layer.*")


def test_of_several_files_it_takes_the_one_that_transformers_would(tmp_path: Path, home: Path) -> None:
    """A trainer saves its arguments and its optimizer beside the weights, in files that look the same."""
    own = {"w": torch.ones(3)}
    beside = {"model/training_args.bin": pth(nn.Linear(1, 1)), "model/optimizer.pt": pth({"state": own["w"]})}
    for number, (path, data) in enumerate(
        (("pytorch_model.bin", pth(own)), ("model.safetensors", safetensors(own)))
    ):
        files = {f"model/{path}": data, "model/adapter.safetensors": safetensors(own)} | beside
        if path.endswith(".bin"):
            del files["model/adapter.safetensors"]
        held = stored(tmp_path / str(number), home, files, f"lab/{number}")
        assert list(load(held.target, home=home)) == ["w"]


@pytest.mark.parametrize("paths", [("1.ckpt", "last.ckpt"), ("a/pytorch_model.bin", "b/pytorch_model.bin")])
def test_of_several_files_that_nothing_tells_apart_none_is_taken(
    tmp_path: Path, home: Path, paths: tuple[str, ...]
) -> None:
    held = stored(tmp_path / "files", home, {f"model/{path}": pth({"w": torch.ones(3)}) for path in paths})
    with pytest.raises(LoadError, match="no index says which") as caught:
        load(held.target, home=home)
    assert all(path in caught.value.message for path in paths)


def test_what_is_not_here_says_how_to_get_it(held: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not here") as caught:
        load(held.target, "model", home=tmp_path / "other")
    assert f"diachunk fetch {held.target}" in caught.value.hint


def test_a_command_that_is_told_takes_what_it_names(held: Checkpoint, home: Path) -> None:
    """A name that only a manifest claims, as after a fetch by file, finds what is here, and is nothing to fetch by."""
    blob_of(held, home, FILE).unlink()
    with pytest.raises(LoadError, match="is not here") as caught:
        load(held.manifest.name, "model", home=home)
    told = re.findall(r"`diachunk fetch (\S+) --component (\S+)`", caught.value.hint)
    (target, component) = told[0]
    assert diachunk.fetch(target, components=[component], origins=[str(held.root)], home=home)
    assert load(held.manifest.name, "model", home=home)


def test_a_recipe_that_was_not_fetched_says_how_to_get_it(home: Path) -> None:
    with pytest.raises(UsageError, match="not fetched here yet") as caught:
        load("dia-1.6b", "model", home=home)
    assert "diachunk fetch dia-1.6b" in caught.value.hint
    assert "--fetch" in caught.value.hint


def test_a_file_of_tensors_is_no_manifest_and_says_what_would_do(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors(weights()))
    with pytest.raises(UsageError, match="file of tensors") as caught:
        load(str(file), home=home)
    assert f"diachunk publish {file} --name" in caught.value.hint


def test_a_component_without_tensors_says_what_it_has(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {"config/config.json": b"{}"})
    with pytest.raises(LoadError, match="no tensors") as caught:
        load(held.target, home=home)
    assert "config.json" in caught.value.hint


def test_several_files_without_an_index_are_ambiguous(tmp_path: Path, home: Path) -> None:
    files = {f"model/{name}.safetensors": safetensors({"a": torch.ones(1)}) for name in ("one", "two")}
    held = stored(tmp_path / "files", home, files)
    with pytest.raises(LoadError, match=r"one\.safetensors, two\.safetensors"):
        load(held.target, home=home)


def test_gguf_is_refused(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {"model/model.gguf": b"GGUF" + bytes(100)})
    with pytest.raises(LoadError, match="GGUF"):
        load(held.target, home=home)
    other = stored(tmp_path / "more", home, {"model/model.bin": b"GGUF" + bytes(100)}, "lab/other")
    with pytest.raises(LoadError, match="GGUF"):
        load(other.target, home=home)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "absent.safetensors"}},
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": ["a"]},
        {"weight_map": {"a": {}}},
        {},
        [],
    ],
)
def test_an_index_that_makes_no_sense_is_refused(tmp_path: Path, home: Path, index: object) -> None:
    files = {
        "model/m.safetensors": safetensors({"a": torch.ones(1)}),
        "model/m.safetensors.index.json": json.dumps(index).encode(),
    }
    held = stored(tmp_path / "files", home, files)
    with pytest.raises(LoadError, match="index"):
        load(held.target, home=home)


MALFORMED = {
    "a header of 200 MB in a file of a kilobyte": (200_000_000).to_bytes(8, "little") + b"{" + bytes(1000),
    "a header longer than the file": (5000).to_bytes(8, "little") + b"{" + bytes(1000),
    "overlapping ranges": safetensors_of({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "a range outside the file": safetensors_of({"a": entry(0, 8), "b": entry(8, 4000)}, bytes(12)),
    "a range that ends before it begins": safetensors_of({"a": entry(8, 0, shape=[0])}, bytes(12)),
    "a shape that is not its range": safetensors_of({"a": entry(0, 8, "F32", [3])}, bytes(12)),
    "a negative shape": safetensors_of({"a": entry(0, 8, "U8", [-8])}, bytes(12)),
    "a dtype that torch has not": safetensors_of({"a": entry(0, 6, "F6_E2M3", [8])}, bytes(12)),
    "a dtype that nobody has": safetensors_of({"a": entry(0, 8, "Q8", [8])}, bytes(12)),
    "a shape larger than memory": safetensors_of({"a": entry(0, 8, "X", [1 << 60])}, bytes(12)),
    "no header": b"nothing that anybody reads",
    "nothing": b"",
    "a zip file cut short": pth({"a": torch.ones(100)})[:-40],
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused(tmp_path: Path, home: Path, data: bytes) -> None:
    held = stored(tmp_path / "files", home, {FILE: data})
    with pytest.raises(LoadError) as caught:
        load(held.target, home=home)
    assert "model/model.safetensors" in caught.value.message or "tensor 'a'" in caught.value.message


def test_a_header_over_the_cap_is_refused_though_it_is_all_there(tmp_path: Path, home: Path) -> None:
    text = json.dumps({"a": entry(0, 4)}).encode().ljust(HEADER_BYTES_MAX + 1)
    data = len(text).to_bytes(8, "little") + text + bytes(4)
    held = stored(tmp_path / "files", home, {FILE: data})
    with pytest.raises(LoadError, match=r"model/model\.safetensors"):
        load(held.target, home=home)


def test_a_header_as_long_as_the_cap_loads(tmp_path: Path, home: Path) -> None:
    """Else the test before proves nothing."""
    text = json.dumps({"a": entry(0, 4)}).encode().ljust(HEADER_BYTES_MAX)
    data = len(text).to_bytes(8, "little") + text + bytes(4)
    assert load(stored(tmp_path / "files", home, {FILE: data}).target, home=home)["a"].tolist() == [0] * 4


# --- memory --------------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_before_it_starts(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few() -> int:
        return 20 * MiB

    monkeypatch.setattr(devices, "available_bytes", few)
    with pytest.raises(LoadError, match=r"needs [\d,]+ bytes of memory on cpu, 20,971,520 are free"):
        load(held.target, "model", home=home, verify="always")
    # what is mapped needs none
    assert load(held.target, "model", home=home).report.mapped_bytes


def test_a_stream_that_is_refused_leaves_no_file_open(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupts(event: LoadEvent) -> None:
        raise Interrupted("stopped")

    files = open_files()
    for _ in range(3):
        with pytest.raises(Interrupted):
            stream(held.target, "model", home=home, progress=interrupts)
    monkeypatch.setattr(devices, "available_bytes", lambda *_: 1000)
    for _ in range(3):
        with pytest.raises(LoadError, match="memory"):
            stream(held.target, "model", home=home, verify="always")
    assert open_files() == files


def test_memory_that_may_still_be_taken_is_bounded_by_the_process_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    assert (memory.available_bytes() or 0) > 0
    wanted = 1 << 40
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
        assert (memory.available_bytes() or 0) < wanted
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_running_out_midway_frees_everything_and_says_so(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    allocated: list[weakref.ref[torch.Tensor]] = []
    allocate = devices.Host.allocate

    def scarce(self: devices.Host, elements: int, dtype: torch.dtype) -> torch.Tensor:
        if len(allocated) == 5:
            return torch.empty(1 << 60, dtype=dtype)  # torch's own error
        tensor = allocate(self, elements, dtype)
        allocated.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(devices.Host, "allocate", scarce)
    with pytest.raises(LoadError, match=r"cpu ran out of memory after [\d,]+ of [\d,]+ bytes") as caught:
        load(held.target, "model", home=home, verify="always")
    assert "freed" in caught.value.hint
    gc.collect()
    # also while the error is still held
    assert [ref for ref in allocated if ref() is not None] == []


def test_a_gpu_that_cannot_be_used_is_refused(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forked() -> int:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.\nMore of it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", forked)
    with pytest.raises(LoadError, match=r"^cuda cannot be used: Cannot re-initialize .* subprocess\.$"):
        load(held.target, "model", "cuda", home=home)


def test_a_device_that_is_full_or_broken_lacks_no_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[RuntimeError] = [torch.OutOfMemoryError("no room"), torch.AcceleratorError("assert")]

    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise errors.pop(0)

    monkeypatch.setattr(torch, "empty", refuse)
    device = devices.Other(torch.device("xpu"))
    assert not device.lacks(torch.float32)
    with pytest.raises(torch.AcceleratorError, match="assert"):
        device.lacks(torch.float32)


@pytest.mark.parametrize("component", ["model", "vocoder"])
def test_another_default_device_changes_nothing(held: Checkpoint, home: Path, component: str) -> None:
    with torch.device("meta"):
        found = load(held.target, component, home=home)
    assert {str(tensor.device) for tensor in found.values()} == {"cpu"}


@pytest.mark.parametrize(
    ("membership", "group", "limit", "usage"),
    [
        ("0::/slurm/job_7\n", "slurm", "memory.max", "memory.current"),
        (
            "5:cpu:/x\n3:memory:/slurm/job_7\n",
            "memory/slurm/job_7",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
        ("0::/../away\n", ".", "memory.max", "memory.current"),
    ],
)
def test_the_limit_of_a_batch_job_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, group: str, limit: str, usage: str
) -> None:
    (tmp_path / "membership").write_text(membership)
    (tmp_path / group).mkdir(parents=True, exist_ok=True)
    for name, text in ((limit, "5000\n"), (usage, "3000\n"), ("memory.stat", "anon 7\ninactive_file 1000\n")):
        (tmp_path / group / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership", raising=False)
    assert memory.available_bytes() == 3000
