"""PyTorch files that mean harm: nothing that they name runs, and none takes the machine or the process with it."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from diachunk.api.loading.load import load
from diachunk.errors import LoadError
from diachunk.limits import MiB
from fixtures.harmful_pickles import HARMFUL
from fixtures.load_attack import (
    dict_of,
    named,
    outcomes,
    pickled,
    refusal,
    tensor,
    text,
    zipped,
)
from fixtures.tensors import pth, safetensors, stored

# --- what would run ------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


class ByState(Malicious):
    """Runs what it wants when its state is set, not when it is made."""

    def __reduce__(self) -> Any:
        return object, (), None, iter([Malicious(self.mark)])


def running(mark: Path) -> dict[str, bytes]:
    """Pickles, each of which makes a directory if its way of calling works."""
    path = text(str(mark))
    line = str(mark).encode()
    made = [pickle.dumps(Malicious(mark), protocol) for protocol in range(6)]
    return {
        **{f"protocol {number_}": data for number_, data in enumerate(made)},
        "items": pickle.dumps(ByState(mark), 2),
        "reduce": pickled(named("posix", "mkdir") + path + b"\x85R"),
        "obj": pickled(b"(" + named("posix", "mkdir") + path + b"o"),
        "inst": b"(S'" + line + b"'\niposix\nmkdir\n.",
        "stack global": pickled(text("posix") + text("mkdir") + b"\x93" + path + b"\x85R", 4),
        "newobj": pickled(named("posix", "mkdir") + path + b"\x85\x81"),
        "newobj_ex": pickled(named("posix", "mkdir") + path + b"\x85}\x92", 4),
        "eval": pickled(
            named("builtins", "eval") + text(f"__import__('os').mkdir({str(mark)!r})") + b"\x85R"
        ),
        "dotted": pickled(named("torch", "os.mkdir") + path + b"\x85R"),
        "through torch": pickled(named("torch.serialization", "os.mkdir") + path + b"\x85R"),
        "getattr": pickled(
            named("builtins", "getattr")
            + named("posix", "mkdir")
            + text("__call__")
            + b"\x86R"
            + path
            + b"\x85R"
        ),
        "build": pickled(
            named("collections", "OrderedDict") + b")R" + dict_of(__class__=named("posix", "mkdir")) + b"b"
        ),
        "extension": pickled(b"\x82\x01"),
        "persistent, as text": pickled(b"P" + line + b"\n"),
        "persistent, of another kind": pickled(b"(" + text("module") + path + b"tQ"),
        "rebuilt as": pickled(
            named("torch._tensor", "_rebuild_from_type_v2")
            + b"("
            + named("posix", "mkdir")
            + named("torch", "Tensor")
            + b"("
            + path
            + b"t}tR"
        ),
    }


@pytest.mark.parametrize("way", running(Path("x")))
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "beside a tensor"])
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path, way: str, wrapped: bool) -> None:
    mark = tmp_path / "was-run"
    data = running(mark)[way]
    if wrapped and data[:1] == b"\x80" and data[1] < 4:
        data = pickled(dict_of(a=tensor(), x=data[2:-1]))
    assert refusal(zipped(data)) is not None or way in ("extension", "persistent, as text", "build")
    assert refusal(data) is not None, "a bare pickle"
    assert not mark.exists()


def test_the_ways_of_calling_above_do_work(tmp_path: Path) -> None:
    """Else the test before proves nothing."""
    worked = set()
    for number_, (way, data) in enumerate(running(tmp_path / "mark").items()):
        mark = tmp_path / f"mark{number_}"
        data = running(mark)[way]
        with contextlib.suppress(Exception):  # some are made for torch's unpickler alone
            pickle.loads(data)
        if mark.exists():
            worked.add(way)
    ours = {"reduce", "obj", "inst", "stack global", "eval", "getattr"}
    assert worked >= {f"protocol {each}" for each in range(6)} | ours


# --- what would take the machine, or the process -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, float, str]]:
    return outcomes(tmp_path_factory.mktemp("pickles") / "cases", HARMFUL, 100)


@pytest.mark.parametrize("case", HARMFUL)
def test_a_harmful_file_is_refused_in_bounded_time_and_memory(
    tried: dict[str, tuple[int, float, str]], case: str
) -> None:
    gained_bytes, spent_s, how = tried[case]
    assert how.startswith("refused m/file"), how
    assert gained_bytes < 600 * MiB
    assert spent_s < 20


def test_what_torch_save_writes_is_not_taken_for_harm() -> None:
    tree = {
        "model": {f"layer.{each}.weight": torch.ones(2) for each in range(3000)},
        "optimizer": {"state": {each: {"step": torch.tensor(1.0), "lr": 0.1} for each in range(500)}},
        "rng": torch.get_rng_state(),
        "bytes": b"raw" * 1000,
        "set": {1, 2},
        "size": torch.Size((1, 2)),
        "big": 1 << 100,
        "alike": [("a", 1)] * 500,
        "rows": [[0.5] * 100] * 150,
        "keyed": {("a", each, ("b",) * 100): each for each in range(500)},
        "param": torch.nn.Parameter(torch.ones(3)),
    }
    for protocol in (2,):
        assert refusal(pth(tree, pickle_protocol=protocol)) is None


def test_a_file_saved_without_checksums_loads(tmp_path: Path, home: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        data = pth({"a": torch.arange(9)})
    finally:
        torch.serialization.set_crc32_options(before)
    held = stored(tmp_path / "files", home, {"m/w.pth": data})
    assert torch.equal(load(held.target, home=home)["a"], torch.arange(9))


def test_names_of_a_legacy_pickle_that_collide_are_refused(tmp_path: Path, home: Path) -> None:
    tree = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}
    held = stored(tmp_path / "files", home, {"m/w.pth": pth(tree, _use_new_zipfile_serialization=False)})
    with pytest.raises(LoadError, match=r"a\.b"):
        load(held.target, home=home, allow_code=True)


def test_safetensors_go_before_an_index_of_pickled_shards(tmp_path: Path, home: Path) -> None:
    """Nothing is unpickled that need not be: as the hub keeps many models, in both formats."""
    files = {
        "m/model.safetensors": safetensors({"safe": torch.ones(2)}),
        "m/pytorch_model.bin.index.json": b'{"weight_map": {"a": "pytorch_model-1.bin"}}',
        "m/pytorch_model-1.bin": pth({"a": torch.ones(2)}),
    }
    held = stored(tmp_path / "files", home, files)
    assert list(load(held.target, home=home)) == ["safe"]
