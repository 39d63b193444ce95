"""Laws of the readers and of the cuts, over layouts and bytes that hypothesis makes up."""

from __future__ import annotations

import io
import json
import struct
from itertools import accumulate
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from diachunk.chunking.cuts import cut_sizes
from diachunk.formats.base import BytesAccess, FormatError, FormatReader, TensorSpan
from diachunk.formats.gguf import Gguf
from diachunk.formats.registry import find_tensors
from diachunk.formats.safetensors import Safetensors
from diachunk.formats.spans import check
from diachunk.formats.torch_zip import TorchZip
from diachunk.limits import CHUNK_BYTES, TENSOR_CUT_BYTES, KiB, MiB
from format_files import GgufTensor, Zip, ZipEntry, entry, gguf_of, pair, places, safetensors_of, text

READERS: dict[str, FormatReader] = {reader.name: reader for reader in (Safetensors(), TorchZip(), Gguf())}
TEXT = st.text('ab.é字😀"\\/{}[]:,\n\0\x7f', max_size=8)
TENSORS = st.dictionaries(TEXT, st.binary(max_size=40), max_size=8)
EDITS = st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=8)), max_size=4)
# On a busy machine a slow example is no failure; an endless one meets pytest's timeout.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(tensors=TENSORS, order=st.randoms(use_true_random=False), pretty=st.booleans())
@unhurried
def test_a_safetensors_file_gives_back_what_was_put_in(
    tensors: dict[str, bytes], order: Random, pretty: bool
) -> None:
    header, data = {}, b""
    for name, value in tensors.items():
        header[name] = entry(len(data), len(data) + len(value))
        data += value
    names = list(header)
    order.shuffle(names)
    shuffled = {name: header[name] for name in names}
    written = json.dumps(shuffled, ensure_ascii=pretty, indent=2 if pretty else None)
    assert places(Safetensors(), safetensors_of(written, data)) == tensors


@given(values=st.lists(st.binary(max_size=40), max_size=6), zip64=st.booleans(), wide=st.booleans())
@unhurried
def test_a_zip_file_gives_back_its_storages(values: list[bytes], zip64: bool, wide: bool) -> None:
    entries = []
    for index, value in enumerate(values):
        padding = b"FB" + struct.pack("<H", index * 7) + bytes(index * 7)
        entries.append(ZipEntry(b"m/data/%d" % index, value, local_extra=padding, sizes_in_zip64=wide))
        entries.append(ZipEntry(b"m/other%d" % index, value[::-1]))
    built = Zip(entries, zip64=zip64).build()
    assert places(TorchZip(), built) == {f"m/data/{index}": value for index, value in enumerate(values)}


@given(values=st.lists(st.binary(max_size=40), max_size=6), alignment=st.sampled_from([8, 32, 56]))
@unhurried
def test_a_gguf_file_gives_back_its_tensors(values: list[bytes], alignment: int) -> None:
    tensors, data = [], b""
    for index, value in enumerate(values):
        tensors.append(GgufTensor(b"t%d" % index, 24, (len(value),), len(data)))
        data += value + bytes(-len(value) % alignment)
    pairs = [pair(b"general.alignment", 4, struct.pack("<I", alignment)), pair(b"name", 8, text(b"x"))]
    built = gguf_of(tensors, data, pairs, alignment)
    assert places(Gguf(), built) == {f"t{index}": value for index, value in enumerate(values)}


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(9), "b": torch.ones(2)}, buffer)
    return buffer.getvalue()


VALID = {
    "safetensors": safetensors_of(
        '{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"abcd"
    ),
    "torch-zip": torch_file(),
    "gguf": gguf_of(
        [GgufTensor(b"a", 0, (2,), 0), GgufTensor(b"b", 999, (2,), 32)],
        bytes(50),
        [pair(b"k", 9, struct.pack("<IQ", 8, 2) + text(b"a") + text(b"b"))],
    ),
}
PREFIX = {
    "safetensors": b"",
    "torch-zip": b"PK\x03\x04",
    "gguf": b"GGUF\x03\0\0\0",
}


def read_whatever(reader: FormatReader, data: bytes) -> None:
    try:
        spans = reader.tensors(BytesAccess(data))
    except FormatError:
        return
    check(spans, len(data))


@pytest.mark.parametrize("name", READERS)
@given(data=st.binary(max_size=300))
@unhurried
def test_random_bytes_raise_nothing_but_format_error(name: str, data: bytes) -> None:
    read_whatever(READERS[name], data)
    read_whatever(READERS[name], PREFIX[name] + data)
    read_whatever(READERS[name], safetensors_of(data, b"abc"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        JSON | st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON}),
    )
)
@example(header={"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}})
@unhurried
def test_any_json_header_raises_nothing_but_format_error(header: object) -> None:
    read_whatever(Safetensors(), safetensors_of(json.dumps(header), b"abc"))


@pytest.mark.parametrize("name", READERS)
@given(edits=EDITS, cut=st.integers(0))
@unhurried
def test_a_mutated_file_raises_nothing_but_format_error(
    name: str, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(VALID[name])
    for place, piece in edits:
        at = place % len(data)
        data[at : at + len(piece)] = piece
    read_whatever(READERS[name], bytes(data))
    read_whatever(READERS[name], bytes(data[: cut % len(data)]))
    find_tensors("x", BytesAccess(bytes(data)))


LARGE = TENSOR_CUT_BYTES // 4
"""How many float32 make a tensor that gets its own chunks."""
PIECES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([0, 1, 3 * KiB, TENSOR_CUT_BYTES - 1, TENSOR_CUT_BYTES, MiB, CHUNK_BYTES])
        | st.integers(0, 11 * MiB),
    ),
    max_size=12,
)


def laid_out(pieces: list[tuple[bool, int]]) -> tuple[int, list[TensorSpan]]:
    """A file of these pieces, tensors (True) and fillers (False), one after the other: its size and spans."""
    offset, spans = 0, []
    for index, (is_tensor, size) in enumerate(pieces):
        if is_tensor:
            spans.append(TensorSpan(str(index), "", (), offset, size))
        offset += size
    return offset, spans


@given(pieces=PIECES)
@unhurried
def test_chunks_partition_the_file_and_follow_its_large_tensors(pieces: list[tuple[bool, int]]) -> None:
    size_bytes, spans = laid_out(pieces)
    sizes = cut_sizes(size_bytes, spans)
    assert sum(sizes) == size_bytes
    assert all(1 <= size <= CHUNK_BYTES for size in sizes)
    points = set(accumulate(sizes, initial=0))
    large = [span for span in spans if span.size >= TENSOR_CUT_BYTES]
    assert {place for span in large for place in (span.offset, span.end)} <= points
    # Every chunk under 4 MiB ends where something else starts: no cut is made without a reason.
    reasons = {size_bytes} | {place for span in large for place in (span.offset, span.end)}
    ends = zip(accumulate(sizes), sizes, strict=True)
    assert all(end in reasons for end, size in ends if size < CHUNK_BYTES)


def chunks_of_tensors(pieces: list[tuple[bool, int]]) -> dict[int, list[tuple[int, int]]]:
    """For each large tensor, by its index among the pieces, its chunks as (start in the tensor, size)."""
    size_bytes, spans = laid_out(pieces)
    sizes = cut_sizes(size_bytes, spans)
    starts = list(accumulate(sizes, initial=0))
    return {
        int(span.name): [
            (start - span.offset, size)
            for start, size in zip(starts, sizes, strict=False)
            if span.offset <= start < span.end
        ]
        for span in spans
        if span.size >= TENSOR_CUT_BYTES
    }


@given(pieces=PIECES, at=st.integers(0, 12), inserted=st.integers(0, 9 * MiB), is_tensor=st.booleans())
@settings(unhurried, max_examples=200)
def test_what_is_inserted_moves_no_chunk_of_another_tensor(
    pieces: list[tuple[bool, int]], at: int, inserted: int, is_tensor: bool
) -> None:
    at = min(at, len(pieces))
    before = chunks_of_tensors(pieces)
    after = chunks_of_tensors([*pieces[:at], (is_tensor, inserted), *pieces[at:]])
    assert {index: after[index + (index >= at)] for index in before} == before


@given(lengths=st.lists(st.integers(LARGE, LARGE + 40_000), min_size=1, max_size=3))
@settings(unhurried, max_examples=15)
def test_the_same_tensors_share_their_chunks_in_both_containers(lengths: list[int]) -> None:
    tensors = {f"t{n}": torch.arange(length, dtype=torch.float32) + n for n, length in enumerate(lengths)}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    assert chunk_bytes(buffer.getvalue()) >= {tensor.numpy().tobytes() for tensor in tensors.values()}
    assert chunk_bytes(save(tensors)) >= {tensor.numpy().tobytes() for tensor in tensors.values()}


def chunk_bytes(data: bytes) -> set[bytes]:
    sizes = cut_sizes(len(data), find_tensors("", BytesAccess(data)).spans)
    return {data[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)}
