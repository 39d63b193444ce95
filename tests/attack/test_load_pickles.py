"""PyTorch files that mean harm: nothing that they name runs, and none takes the machine or the process with it."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from diachunk.api.loading import load
from diachunk.errors import LoadError
from diachunk.limits import MiB
from fixtures.load_attack import (
    dict_of,
    number,
    outcomes,
    pickled,
    refusal,
    storage,
    tensor,
    tensor_arguments,
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


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


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


def doubled(times: int) -> bytes:
    """A tuple of the same tuple twice, and so on."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(times))


def lists_doubled_from_the_outside(times: int) -> bytes:
    """Each list is put into the next while it is still empty, so that whoever adds up too early sees nothing."""
    made = b"".join(b"]q" + bytes([each]) + b"0" for each in range(times))
    filled = b"".join(
        b"h" + bytes([each]) + b"h" + bytes([each - 1]) + b"ah" + bytes([each - 1]) + b"a0"
        for each in range(times - 1, 0, -1)
    )
    return made + filled + b"h" + bytes([times - 1])


def typed(attributes: bytes) -> bytes:
    """A tensor that is given attributes."""
    return (
        named("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + named("torch._utils", "_rebuild_tensor_v2")
        + named("torch", "Tensor")
        + tensor_arguments()
        + attributes
        + b"tR"
    )


HUGE = 1 << 40
ODD_ALIGNMENT = {".format_version": b"1", ".storage_alignment": b"x"}
HARMFUL: Mapping[str, bytes] = {
    "big-endian": zipped(pickled(dict_of(a=tensor())), more={"byteorder": b"big"}),
    "byte-order-unknown": zipped(pickled(dict_of(a=tensor())), more={"byteorder": b"middle"}),
    "byte-order-long": zipped(pickled(dict_of(a=tensor())), more={"byteorder": b"big" * 1000}),
    "alignment-is-no-number": zipped(pickled(dict_of(a=tensor())), more=ODD_ALIGNMENT),
    "compressed": zipped(pickled(dict_of(a=tensor(), z=text(bytes(40 * MiB)))), method=zipfile.ZIP_DEFLATED),
    "hash-of-doubled-tuples": zipped(pickled(b"}(" + doubled(60) + tensor() + b"u")),
    "doubled-tuples": zipped(pickled(dict_of(a=tensor(), z=doubled(60)))),
    "set-of-doubled-tuples": zipped(pickled(named("builtins", "set") + b"]" + doubled(60) + b"a\x85R")),
    "storage-named-by-doubled-tuples": zipped(
        pickled(
            b"("
            + text("storage")
            + named("torch", "FloatStorage")
            + doubled(60)
            + text("cpu")
            + number(4)
            + b"tQ"
        )
    ),
    "call-of-doubled-lists": zipped(pickled(lists_doubled_from_the_outside(60) + b")R")),
    "new-object-of-doubled-lists": zipped(pickled(lists_doubled_from_the_outside(60) + b")\x81")),
    "deep-tuple-as-key": zipped(pickled(b"}(" + b")" + b"\x85" * 300_000 + tensor() + b"u")),
    "deep-list": zipped(pickled(dict_of(a=tensor(), z=b"]" * 300_000 + b"a" * 299_999))),
    "many-lists": zipped(pickled(b"]" * (5 * MiB))),
    "long": zipped(pickled(text(bytes(40 * MiB)))),
    "bytearray": zipped(pickled(dict_of(a=named("builtins", "bytearray") + number(1 << 50) + b"\x85R"))),
    "new-bytearray": zipped(
        pickled(dict_of(a=named("builtins", "bytearray") + number(1 << 50) + b"\x85\x81"))
    ),
    "copies": zipped(
        pickled(
            b"](]q\x00(" + b"N" * 100_000 + b"e" + (named("builtins", "set") + b"h\x00\x85R") * 20_000 + b"e"
        )
    ),
    "encoded-copies": zipped(
        pickled(
            b"]("
            + text("x" * MiB)
            + b"q\x00"
            + (named("_codecs", "encode") + b"h\x00" + text("utf-16") + b"\x86R") * 20_000
            + b"e"
        )
    ),
    "tensor-on-the-host": zipped(pickled(dict_of(a=named("torch", "Tensor") + number(1 << 20) + b"\x85R"))),
    "huge-tensor-on-the-host": zipped(
        pickled(dict_of(a=named("torch", "FloatTensor") + number(HUGE) + b"\x85R"))
    ),
    "huge-storage": zipped(pickled(dict_of(a=tensor(elements=HUGE)))),
    "overflowing-storage": zipped(pickled(dict_of(a=tensor(elements=(1 << 63) - 1)))),
    "storage-past-the-int": zipped(pickled(dict_of(a=tensor(elements=1 << 200)))),
    "absent-storage": zipped(pickled(dict_of(a=tensor("7")))),
    "shape-past-the-storage": zipped(pickled(dict_of(a=tensor(shape=(5,))))),
    "start-past-the-storage": zipped(pickled(dict_of(a=tensor(start=1)))),
    "negative-start": zipped(pickled(dict_of(a=tensor(start=-1)))),
    "negative-shape": zipped(pickled(dict_of(a=tensor(shape=(-4,))))),
    "shape-overflows": zipped(pickled(dict_of(a=tensor(shape=(1 << 62, 1 << 62, 0), stride=(1, 1, 1))))),
    "stride-overflows": zipped(pickled(dict_of(a=tensor(shape=(3, 3), stride=(1 << 62, 1 << 62))))),
    "shape-and-stride-differ": zipped(pickled(dict_of(a=tensor(shape=(2, 2), stride=(1,))))),
    "attribute-in-place-of-a-method": zipped(pickled(dict_of(a=typed(dict_of(is_conj=number(1)))))),
    "attribute-in-place-of-its-storage": zipped(
        pickled(dict_of(a=typed(dict_of(untyped_storage=number(1)))))
    ),
    "offset-that-is-a-list": zipped(
        pickled(
            dict_of(
                a=named("torch._utils", "_rebuild_tensor_v2")
                + b"("
                + named("torch.storage", "UntypedStorage")
                + number(16)
                + b"\x85R"
                + dict_of(_checkpoint_offset=b"]")
                + b"b"
                + tensor_arguments()[1 + len(storage()) :]
                + b"R"
            )
        )
    ),
    "no-storage-at-all": zipped(
        pickled(
            dict_of(
                a=named("torch._utils", "_rebuild_meta_tensor_no_storage")
                + b"("
                + named("torch", "float32")
                + b"("
                + number(4)
                + b"t("
                + number(1)
                + b"t\x89tR"
            )
        )
    ),
    "names-that-collide": zipped(
        pickled(b"}(" + text("a.b") + tensor() + text("a") + dict_of(b=tensor()) + b"u")
    ),
    "keys-that-collide": zipped(pickled(b"}(" + text("1") + tensor() + number(1) + tensor() + b"u")),
    "name-that-no-terminal-takes": zipped(pickled(b"}(" + text(b"\xed\xa0\x80") + tensor() + b"u")),
    "no-pickle": zipped(b""),
    "cut-pickle": zipped(pickled(dict_of(a=tensor()))[:-9]),
    "stack-underrun": zipped(pickled(b"R")),
    "memo-underrun": zipped(pickled(b"h\x09")),
    "mark-underrun": zipped(pickled(b"t")),
    "text-longer-than-the-pickle": zipped(pickled(b"X" + struct.pack("<I", 0xFFFFFFFF))),
    "two-pickles": zipped(pickled(dict_of(a=tensor())), more={"DATA.pkl": pickled(b"]" * 1000)}),
}
"""None of them is what torch.save writes; each is refused."""


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
