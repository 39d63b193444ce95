"""The walk over a pickle's opcodes: it sees what torch's unpickler sees, and nothing of it stays behind."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile

import pytest
import torch

from diachunk.loader import gauge
from diachunk.loader.gauge import TooLarge, Unreadable, measure

ARGUMENTS = {
    "uint1": b"\x07",
    "uint2": b"\x07\x01",
    "int4": b"\x07\0\0\0",
    "uint4": b"\x07\0\0\0",
    "float8": b"\0" * 8,
    "long1": b"\x03abc",
    "unicodestring4": b"\x03\0\0\0abc",
    "string1": b"\x03abc",
    "stringnl_noescape_pair": b"torch\nSize\n",
}


def pickle_of(tree: object) -> bytes:
    with io.BytesIO() as file:
        torch.save(tree, file)
        with zipfile.ZipFile(file) as archive:
            name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
            return archive.read(name)


TREE = {
    "model": {f"layer.{each}.weight": torch.ones(2) for each in range(300)},
    "step": torch.nn.Parameter(torch.ones(3)),
    "text": "ä" * 400,
    "numbers": [1, 1 << 9, 1 << 20, -1, 1 << 100, 0.5, True, None],
    "alike": [("a", 1)] * 50,
}


@pytest.mark.parametrize("code", sorted(gauge._KNOWN))
def test_every_opcode_ends_where_the_standard_library_has_its_end(code: bytes) -> None:
    opcode = next(each for each in pickletools.opcodes if each.code.encode("latin-1") == code)
    argument = b"" if opcode.arg is None else ARGUMENTS[opcode.arg.name]
    walk = gauge._Gauge()
    name = gauge._Value(name="collections OrderedDict")
    walk.stack += [name, gauge._Value(grows=True), gauge._Value(grows=True), *(gauge._ATOM,) * 2]
    walk.outer.append([gauge._Value(grows=True)])
    walk.memo[7] = gauge._ATOM
    if opcode.name in ("REDUCE", "NEWOBJ"):
        walk.stack[-2] = name
    if opcode.name in ("BUILD", "APPEND"):
        walk.stack.pop()
    if opcode.name == "SETITEM":
        walk.stack[-3] = gauge._Value(grows=True)
    assert gauge._STEPS[code[0]](walk, code + argument, 1) == 1 + len(argument)


def test_all_that_torch_reads_is_known_and_nothing_else() -> None:
    unpickler = torch._weights_only_unpickler
    source = vars(unpickler)
    read = {
        value
        for name, value in source.items()
        if name.isupper() and isinstance(value, bytes) and len(value) == 1 and hasattr(pickle, name)
    }
    # What it imports by name is what it reads; STOP ends the walk.
    assert read - {pickle.STOP} == set(gauge._KNOWN)


def test_what_torch_saves_is_measured_to_its_end() -> None:
    measure(pickle_of(TREE))


def test_a_pickle_cut_anywhere_is_unreadable() -> None:
    whole = pickle_of({"a": torch.ones(2), "b": "text" * 100})
    for size in range(len(whole)):
        with pytest.raises(Unreadable):
            measure(whole[:size])


@pytest.mark.parametrize("put", [b"Nb", b"Na", b"(NNe", b"NNs"])
def test_a_hostile_pickle_leaves_nothing_behind_that_measures_the_next_wrongly(put: bytes) -> None:
    hostile = b"\x80\x02N" + put * 1000 + b"."
    for _ in range(3):
        with pytest.raises((Unreadable, TooLarge)):
            measure(hostile)
    assert (gauge._ATOM.weight, gauge._ATOM.depth) == (1, 1)
    assert all(
        (each.weight, each.depth) == (1 + size // 8, 1) for size, each in enumerate(gauge._SHORT_TEXTS)
    )
    measure(pickle_of(TREE))


def test_text_is_not_grown_either() -> None:
    with pytest.raises(Unreadable):
        measure(b"\x80\x02X\x01\0\0\0aNb.")
