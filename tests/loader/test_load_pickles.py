"""PyTorch files: views, strides and ties as they were; and nothing that they name is ever run."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import pickle
import re
import threading
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from diachunk.api.loading.load import load
from diachunk.api.loading.options import Verify
from diachunk.errors import LoadError
from diachunk.formats.base import BytesAccess
from diachunk.loader.headers import read_layout
from fixtures.tensors import assert_same, cut_anywhere, pth, safetensors, stored, weights

FILE = "vocoder/weights.pth"
EACH_WAY = pytest.mark.parametrize("verify", ["stamp", "always"])


@EACH_WAY
def test_load_gives_what_torch_load_gives(tmp_path: Path, home: Path, verify: Verify) -> None:
    held = stored(tmp_path / "files", home, {FILE: pth(weights())})
    wanted = torch.load(held.file(FILE), weights_only=True)
    assert_same(load(held.target, home=home, verify=verify), wanted)
    cast = {
        name: each.to(torch.bfloat16) if each.is_floating_point() else each for name, each in wanted.items()
    }
    assert_same(load(held.target, home=home, verify=verify, dtype="bf16"), cast)


@EACH_WAY
@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_views_strides_and_ties_stay(tmp_path: Path, home: Path, verify: Verify, dtype: str | None) -> None:
    base = torch.randn(600, 500)
    tree = {
        "base": base,
        "turned": base.t(),
        "part": base[3:50:2, 7:30],
        "tied": base,
        "alone": torch.ones(7),
    }
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    loaded = load(held.target, home=home, verify=verify, dtype=dtype)
    for name, tensor in tree.items():
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype))
        assert loaded[name].stride() == tensor.stride()
        assert loaded[name].storage_offset() == tensor.storage_offset()
    storages = {name: tensor.untyped_storage().data_ptr() for name, tensor in loaded.items()}
    assert storages["base"] == storages["turned"] == storages["part"] == storages["tied"] != storages["alone"]
    loaded["tied"][3, 7] = 42
    assert loaded["part"][0, 0] == 42
    assert loaded.report.result_bytes == (base.numel() + 7) * (2 if dtype else 4)


def test_a_tie_that_is_to_be_kept_keeps_all_that_it_ties(tmp_path: Path, home: Path) -> None:
    base = torch.randn(100)
    held = stored(tmp_path / "files", home, {FILE: pth({"a": base, "norm": base[:10], "b": torch.ones(3)})})
    loaded = load(held.target, home=home, dtype="fp16", keep_dtype="norm")
    assert [loaded[name].dtype for name in ("a", "norm", "b")] == [
        torch.float32,
        torch.float32,
        torch.float16,
    ]


def test_a_whole_file_that_was_hashed_is_proven_gaps_and_all(tmp_path: Path, home: Path) -> None:
    """There are chunks that no header and no tensor needs."""
    buffer = io.BytesIO(pth({"a": torch.randn(70_000)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/notes", bytes(1_000_000))
    held = cut_anywhere(tmp_path / "files", home, "w.pth", buffer.getvalue(), itertools.repeat(100_000))
    for stamp in (home / "blobs").glob("??/*.stamp"):
        stamp.unlink()
    first = load(held.target, home=home, verify="always").report
    assert first.verified_bytes > first.total_bytes
    assert load(held.target, home=home).report.verified_bytes == 0


def test_nested_keys_join_and_the_rest_is_metadata(tmp_path: Path, home: Path) -> None:
    tree = {
        "model": {"a": torch.ones(2), "deep": [torch.zeros(3), {"x": torch.ones(1)}]},
        "optimizer": {0: {"step": torch.tensor(3), "lr": 0.1}},
        "epoch": 7,
        "args": {"width": [1, 2]},
    }
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    loaded = load(held.target, home=home)
    assert list(loaded) == ["model.a", "model.deep.0", "model.deep.1.x", "optimizer.0.step"]
    assert loaded.metadata == {"optimizer": {0: {"lr": 0.1}}, "epoch": 7, "args": {"width": [1, 2]}}


def test_a_lone_state_dict_unwraps(tmp_path: Path, home: Path) -> None:
    """The shape of DAC's release file."""
    tree = {"state_dict": OrderedDict(a=torch.ones(2)), "metadata": {"kwargs": {"rate": 44100}}}
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    loaded = load(held.target, home=home)
    assert list(loaded) == ["a"]
    assert loaded.metadata == {"metadata": {"kwargs": {"rate": 44100}}}


def test_a_state_dict_among_others_keeps_its_prefix(tmp_path: Path, home: Path) -> None:
    held = stored(
        tmp_path / "files", home, {FILE: pth({"state_dict": {"a": torch.ones(2)}, "ema": torch.ones(1)})}
    )
    assert list(load(held.target, home=home)) == ["state_dict.a", "ema"]


def test_parameters_conjugates_and_negatives(tmp_path: Path, home: Path) -> None:
    pair = torch.complex(torch.randn(5), torch.randn(5))
    other = torch.complex(torch.randn(5), torch.randn(5)).conj()
    tree = {"weight": torch.nn.Parameter(torch.ones(3)), "conj": pair.conj(), "imag": other.imag}
    assert tree["imag"].is_neg()
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    loaded = load(held.target, home=home)
    assert torch.equal(loaded["conj"], pair.conj())
    assert torch.equal(loaded["imag"], other.imag)
    assert torch.equal(loaded["weight"], torch.ones(3))
    assert not loaded["weight"].requires_grad


def test_safetensors_are_preferred_to_the_same_weights_pickled(tmp_path: Path, home: Path) -> None:
    files = {
        "model.safetensors": safetensors({"safe": torch.ones(2)}),
        "pytorch_model.bin": pth({"not": torch.ones(2)}),
    }
    held = stored(tmp_path / "files", home, files)
    assert list(load(held.target, home=home)) == ["safe"]


# --- what could run code -------------------------------------------------------------------------------------


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nothing_of_a_malicious_pickle_is_run(tmp_path: Path, home: Path, legacy: bool) -> None:
    mark = tmp_path / "was-run"
    data = pth({"a": torch.ones(3), "x": Malicious(mark)}, _use_new_zipfile_serialization=not legacy)
    held = stored(tmp_path / "files", home, {FILE: data})
    for tensors in (None, "a"):
        with pytest.raises(LoadError, match="run code") as caught:
            load(held.target, home=home, tensors=tensors)
        assert "allow_code=True" in caught.value.hint
    assert not mark.exists()


def test_a_bare_pickle_is_not_run(tmp_path: Path, home: Path) -> None:
    mark = tmp_path / "was-run"
    held = stored(tmp_path / "files", home, {FILE: pickle.dumps(Malicious(mark))})
    with pytest.raises(LoadError):
        load(held.target, home=home)
    assert not mark.exists()


def test_allow_code_loads_what_needs_it(tmp_path: Path, home: Path) -> None:
    tree = {"weights": {"a": torch.arange(70_000.0)}, "args": argparse.Namespace(rate=3)}
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    with pytest.raises(LoadError, match="run code"):
        load(held.target, home=home)
    loaded = load(held.target, home=home, allow_code=True, dtype="bf16")
    assert_same(loaded, {"weights.a": torch.arange(70_000.0).to(torch.bfloat16)})
    assert loaded.metadata["args"].rate == 3


def test_a_legacy_pickle_loads_only_when_allowed(tmp_path: Path, home: Path) -> None:
    own = {"a": torch.randn(300, 400), "n": torch.arange(5)}
    held = stored(tmp_path / "files", home, {FILE: pth(own, _use_new_zipfile_serialization=False)})
    with pytest.raises(LoadError):
        load(held.target, home=home)
    assert_same(load(held.target, home=home, allow_code=True), own)
    halves = load(held.target, home=home, allow_code=True, dtype="fp16")
    assert_same(halves, {"a": own["a"].to(torch.float16), "n": own["n"]})


def test_torchscript_is_refused(tmp_path: Path, home: Path) -> None:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 4)), buffer)
    held = stored(tmp_path / "files", home, {FILE: buffer.getvalue()})
    with pytest.raises(LoadError):
        load(held.target, home=home)


def test_a_small_pickle_that_stands_for_a_huge_tree_is_refused(tmp_path: Path, home: Path) -> None:
    tree: dict[str, Any] = {"t": torch.ones(1)}
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    with pytest.raises(LoadError, match="more than"):
        load(held.target, home=home)


def test_a_pickle_that_holds_itself_is_refused(tmp_path: Path, home: Path) -> None:
    tree: dict[str, Any] = {"t": torch.ones(1)}
    tree["me"] = [tree]
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    with pytest.raises(LoadError, match="deeper"):
        load(held.target, home=home)


def test_a_storage_that_the_directory_does_not_have_is_refused(tmp_path: Path, home: Path) -> None:
    """The pickle asks for more bytes than the zip file has for it: what follows must not leak into the tensor."""
    data = pth({"a": torch.ones(4)})
    size = re.search(rb"X\x03\x00\x00\x00cpuq.K\x04", data)
    assert size is not None
    spoilt = data[: size.end() - 1] + b"\xc8" + data[size.end() :]
    held = stored(tmp_path / "files", home, {FILE: spoilt})
    with pytest.raises(LoadError, match="directory"):
        load(held.target, home=home)


def test_loads_side_by_side_leave_the_programs_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pth(weights())
    real, pauses = torch.load, iter((0.2, 0.4))

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(next(pauses))
        return real(*args, **options)

    monkeypatch.setattr(torch, "load", slow)
    before = list(warnings.filters)
    threads = [threading.Thread(target=read_layout, args=(BytesAccess(data), 0, "w.pth")) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
