from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from diachunk.formats.base import FormatError
from diachunk.formats.gguf import _TYPES, Gguf
from format_files import GgufTensor, gguf_of, pair, places, read, text

F32, Q4_0, Q8_1, UNKNOWN = 0, 2, 9, 999


def test_a_file_of_the_gguf_package_is_read(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_array("tokenizer.ggml.tokens", [f"token{index}" for index in range(500)])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    arrays: dict[str, np.ndarray] = {
        "token_embd.weight": np.arange(96, dtype=np.float32).reshape(3, 32),
        "norm": np.ones(7, np.float16),
        "ids": np.arange(3, dtype=np.int64),
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    quantized = np.arange(2 * 3 * 18, dtype=np.uint8).reshape(2, 54)
    writer.add_tensor("blk.0.q", quantized, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "m.gguf").read_bytes()
    expected = {name: array.tobytes() for name, array in arrays.items()} | {"blk.0.q": quantized.tobytes()}
    assert places(Gguf(), data) == expected
    spans = {span.name: span for span in read(Gguf(), data)}
    assert (spans["blk.0.q"].dtype, spans["blk.0.q"].shape) == ("Q4_0", (96, 2))


def test_the_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in _TYPES if kind in theirs} == {
        kind: known for kind, known in _TYPES.items() if kind in theirs
    }
    assert len(theirs.keys() & _TYPES.keys()) >= 30


@pytest.mark.parametrize("version", [2, 3])
def test_tensors_are_placed_after_the_aligned_header(version: int) -> None:
    tensors = [
        GgufTensor(b"b", F32, (2,), 32),
        GgufTensor(b"a", F32, (3,), 0),
        GgufTensor(b"e", F32, (0,), 32),
    ]
    data = gguf_of(tensors, b"abcdefghijkl" + bytes(20) + b"mnopqrst", version=version)
    assert places(Gguf(), data) == {"a": b"abcdefghijkl", "b": b"mnopqrst", "e": b""}
    assert [span.name for span in read(Gguf(), data)] == ["a", "e", "b"]


@pytest.mark.parametrize("alignment", [8, 24, 64, 4096])
def test_the_alignment_key_moves_the_data(alignment: int) -> None:
    pairs = [pair(b"x", 7, b"\1"), pair(b"general.alignment", 4, struct.pack("<I", alignment))]
    data = gguf_of([GgufTensor(b"a", F32, (1,), 0)], b"abcd", pairs, alignment)
    assert places(Gguf(), data) == {"a": b"abcd"}


def test_every_kind_of_value_is_skipped() -> None:
    scalars = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    pairs = [pair(b"k%d" % kind, kind, b"\xff" * size) for kind, size in scalars.items()]
    pairs += [
        pair(b"v%d" % kind, 9, struct.pack("<IQ", kind, 3) + b"\xff" * size * 3)
        for kind, size in scalars.items()
    ]
    pairs += [
        pair(b"string", 8, text(b"hello")),
        pair(b"strings", 9, struct.pack("<IQ", 8, 2) + text(b"") + text(b"x" * 600_000)),
        pair(
            b"nested",
            9,
            struct.pack("<IQ", 9, 2) + struct.pack("<IQ", 0, 1) + b"a" + struct.pack("<IQ", 8, 0),
        ),
    ]
    assert places(Gguf(), gguf_of([GgufTensor(b"a", F32, (1,), 0)], b"abcd", pairs)) == {"a": b"abcd"}


@pytest.mark.parametrize("kind", [UNKNOWN, Q8_1])
def test_a_tensor_of_unknown_type_reaches_to_the_next_one_or_the_end(kind: int) -> None:
    tensors = [
        GgufTensor(b"a", kind, (3,), 0),
        GgufTensor(b"e", F32, (0,), 0),
        GgufTensor(b"b", kind, (1,), 32),
    ]
    data = gguf_of(tensors, b"a" * 32 + b"b" * 9)
    assert places(Gguf(), data) == {"a": b"a" * 32, "e": b"", "b": b"b" * 9}


def test_a_scalar_and_a_block_tensor_have_their_sizes() -> None:
    tensors = [GgufTensor(b"s", F32, (), 0), GgufTensor(b"q", Q4_0, (64, 2, 3), 32)]
    spans = read(Gguf(), gguf_of(tensors, bytes(32 + 12 * 18)))
    assert [(span.name, span.size) for span in spans] == [("s", 4), ("q", 12 * 18)]


def deep(depth: int) -> bytes:
    return pair(b"deep", 9, struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0))


def test_arrays_nested_sixteen_deep_are_skipped_and_deeper_ones_refused() -> None:
    assert read(Gguf(), gguf_of([], pairs=[deep(15)])) == []
    with pytest.raises(FormatError, match="nested"):
        read(Gguf(), gguf_of([], pairs=[deep(16)]))


def one(kind: int = F32, dims: tuple[int, ...] = (1,), offset: int = 0, name: bytes = b"a") -> bytes:
    return gguf_of([GgufTensor(name, kind, dims, offset)], b"abcd")


def head(tensors: int, pairs: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest


def aligned(kind: int, value: bytes) -> bytes:
    return gguf_of([], pairs=[pair(b"general.alignment", kind, value)])


MALFORMED = {
    "other magic": b"GGUG" + one()[4:],
    "version 1": gguf_of([], version=1),
    "version 4": gguf_of([], version=4),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "only a magic": b"GGUF",
    "tensors without end": head(2**63, 0),
    "more tensors than there are": head(2, 0, GgufTensor(b"a", F32, (1,), 0).info() + bytes(8)),
    "pairs without end": head(0, 2**63),
    "key without end": head(0, 1, struct.pack("<Q", 2**62) + bytes(40)),
    "key of 70,000 bytes": gguf_of([], pairs=[pair(b"k" * 70_000, 7, b"x")]),
    "string without end": gguf_of([], pairs=[pair(b"k", 8, struct.pack("<Q", 2**64 - 1))]),
    "array without end": gguf_of([], pairs=[pair(b"k", 9, struct.pack("<IQ", 10, 2**61))]),
    "strings without end": gguf_of([], pairs=[pair(b"k", 9, struct.pack("<IQ", 8, 2**40))]),
    "arrays without end": gguf_of([], pairs=[pair(b"k", 9, struct.pack("<IQ", 9, 2**40))]),
    "unknown value type": gguf_of([], pairs=[pair(b"k", 13, bytes(8))]),
    "array of unknown type": gguf_of([], pairs=[pair(b"k", 9, struct.pack("<IQ", 13, 0))]),
    "alignment 0": aligned(4, struct.pack("<I", 0)),
    "alignment 12": aligned(4, struct.pack("<I", 12)),
    "alignment of gigabytes": aligned(4, struct.pack("<I", 2**31)),
    "alignment of 64 bits": aligned(10, struct.pack("<Q", 32)),
    "alignment twice": gguf_of([], pairs=[pair(b"general.alignment", 4, struct.pack("<I", 32))] * 2),
    "nine dimensions": one(dims=(1,) * 9),
    "dimensions without end": one(name=b"dims", dims=()).replace(b"dims" + bytes(4), b"dims" + b"\xff" * 4),
    "past the end": one(dims=(2,)),
    "size of the world": one(dims=(2**63, 2**63)),
    "offset past the end": one(offset=32),
    "offset of the world": one(offset=2**64 - 32),
    "unknown type past the end": one(kind=UNKNOWN, offset=64),
    "offset not aligned": gguf_of([GgufTensor(b"a", F32, (1,), 4)], bytes(64)),
    "part of a block": gguf_of([GgufTensor(b"a", Q4_0, (33,), 0)], bytes(64)),
    "scalar of blocks": gguf_of([GgufTensor(b"a", Q4_0, (), 0)], bytes(64)),
    "overlap": gguf_of([GgufTensor(b"a", F32, (9,), 0), GgufTensor(b"b", F32, (1,), 32)], bytes(64)),
    "the same place": gguf_of([GgufTensor(b"a", F32, (1,), 0), GgufTensor(b"b", F32, (1,), 0)], bytes(64)),
    "a name twice": gguf_of([GgufTensor(b"a", F32, (1,), 0), GgufTensor(b"a", F32, (1,), 32)], bytes(64)),
    "name not UTF-8": one(name=b"\xff"),
    "name without end": one(name=b"x" * 70_000),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_file_is_refused(what: str) -> None:
    with pytest.raises(FormatError):
        read(Gguf(), MALFORMED[what])


def test_the_files_that_malformed_ones_are_made_from_are_themselves_accepted() -> None:
    assert places(Gguf(), one()) == {"a": b"abcd"}
    assert read(Gguf(), gguf_of([])) == []
    assert read(Gguf(), aligned(4, struct.pack("<I", 64)) + bytes(64)) == []
