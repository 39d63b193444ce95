from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from diachunk.formats.base import FormatError
from diachunk.formats.safetensors import _BITS, Safetensors
from format_files import entry, places, read, safetensors_of


def test_a_file_of_the_safetensors_package_is_read_at_every_dtype() -> None:
    tensors = {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "b.weight": torch.ones(5, dtype=torch.bfloat16),
        "naïve ключ": torch.arange(3, dtype=torch.int64),
        "empty": torch.empty((0, 7)),
        "scalar": torch.tensor(3.5),
        "flags": torch.tensor([True, False]),
        "f8": torch.ones(4).to(torch.float8_e4m3fn),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    data = save(tensors, metadata={"format": "pt", 'odd "key"\n': "{[,:"})
    spans = {span.name: span for span in read(Safetensors(), data)}
    assert spans.keys() == tensors.keys()
    for name, tensor in tensors.items():
        span = spans[name]
        assert span.shape == tuple(tensor.shape)
        assert data[span.offset : span.end] == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert spans["b.weight"].dtype == "BF16"


def test_offsets_count_from_the_start_of_the_file() -> None:
    data = safetensors_of({"x": entry(0, 3), "y": entry(3, 4)}, b"abcd")
    assert places(Safetensors(), data) == {"x": b"abc", "y": b"d"}


def test_spans_are_sorted_by_offset_whatever_the_header_order() -> None:
    data = safetensors_of({"y": entry(3, 4), "x": entry(0, 3)}, b"abcd")
    assert [span.name for span in read(Safetensors(), data)] == ["x", "y"]


def test_padding_spaces_and_foreign_flat_keys_are_accepted() -> None:
    header = ' { "x" : {"extra":[1,2],"more":"s","dtype":"U8","shape":[3],"data_offsets":[0,3]} }\t\n  '
    assert places(Safetensors(), safetensors_of(header.strip() + "   ", b"abc")) == {"x": b"abc"}


def test_a_file_without_tensors_has_no_spans() -> None:
    assert read(Safetensors(), safetensors_of("{}")) == []
    assert read(Safetensors(), safetensors_of('{"__metadata__":{}}')) == []


def test_an_unknown_dtype_is_taken_at_its_span() -> None:
    data = safetensors_of({"x": entry(0, 3, "I3_NEW", [8])}, b"abc")
    assert read(Safetensors(), data)[0].dtype == "I3_NEW"


def test_an_unused_gap_is_no_error() -> None:
    assert places(Safetensors(), safetensors_of({"x": entry(2, 3)}, b"abcd")) == {"x": b"c"}


def test_the_dtype_sizes_are_those_of_torch() -> None:
    known = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "C64": "complex64",
             "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool", "U8": "uint8",
             "U16": "uint16", "U32": "uint32", "U64": "uint64", "F8_E4M3": "float8_e4m3fn",
             "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
             "F8_E5M2FNUZ": "float8_e5m2fnuz"}  # fmt: skip
    assert {name: _BITS[name] for name in known} == {
        name: getattr(torch, dtype).itemsize * 8 for name, dtype in known.items()
    }
    assert {name: bits for name, bits in _BITS.items() if name not in known} == {
        "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    }  # fmt: skip


GOOD = '"dtype":"U8","shape":[3],"data_offsets":[0,3]'

MALFORMED = {
    "not an object": "[]",
    "nothing": "",
    "cut short": '{"x":{' + GOOD,
    "trailing text": '{"x":{' + GOOD + "}}x",
    "two objects": "{}{}",
    "trailing comma": '{"x":{' + GOOD + "},}",
    "a key twice": '{"x":{' + GOOD + '},"x":{' + GOOD + "}}",
    "a key twice by escapes": '{"x":{' + GOOD + '},"\\u0078":{' + GOOD + "}}",
    "an entry's key twice": '{"x":{' + GOOD + ',"shape":[3]}}',
    "metadata twice": '{"__metadata__":{},"__metadata__":{}}',
    "a metadata key twice": '{"__metadata__":{"a":"","a":""}}',
    "metadata of a number": '{"__metadata__":{"a":1}}',
    "metadata of an object": '{"__metadata__":{"a":{}}}',
    "metadata is a list": '{"__metadata__":[]}',
    "entry is a list": '{"x":[]}',
    "entry is null": '{"x":null}',
    "dtype missing": '{"x":{"shape":[3],"data_offsets":[0,3]}}',
    "dtype a number": '{"x":{"dtype":8,"shape":[3],"data_offsets":[0,3]}}',
    "shape missing": '{"x":{"dtype":"U8","data_offsets":[0,3]}}',
    "shape a number": '{"x":{"dtype":"U8","shape":3,"data_offsets":[0,3]}}',
    "shape of floats": '{"x":{"dtype":"U8","shape":[3.0],"data_offsets":[0,3]}}',
    "shape of booleans": '{"x":{"dtype":"U8","shape":[true,3],"data_offsets":[0,3]}}',
    "shape negative": '{"x":{"dtype":"U8","shape":[-1,-3],"data_offsets":[0,3]}}',
    "shape NaN": '{"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,3]}}',
    "shape is not the size": '{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,3]}}',
    "size in half bytes": '{"x":{"dtype":"F4","shape":[5],"data_offsets":[0,3]}}',
    "foreign float": '{"x":{"y":1.5,' + GOOD + "}}",
    "foreign NaN": '{"x":{"y":NaN,' + GOOD + "}}",
    "exponent": '{"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3e0]}}',
    "offsets missing": '{"x":{"dtype":"U8","shape":[3]}}',
    "one offset": '{"x":{"dtype":"U8","shape":[3],"data_offsets":[0]}}',
    "three offsets": '{"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3,3]}}',
    "offsets as object": '{"x":{"dtype":"U8","shape":[3],"data_offsets":{"begin":0,"end":3}}}',
    "offsets swapped": '{"x":{"dtype":"?","shape":[3],"data_offsets":[3,0]}}',
    "past the end": '{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "enormous offset": '{"x":{"dtype":"?","shape":[1],"data_offsets":[0,99999999999999999999]}}',
    "too many digits": '{"x":{"dtype":"?","shape":[' + "1" * 1000 + '],"data_offsets":[0,3]}}',
    "overlap": '{"x":{' + GOOD + '},"y":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}',
    "the same place": '{"x":{' + GOOD + '},"y":{' + GOOD + "}}",
    "empty inside another": '{"x":{' + GOOD + '},"y":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}',
    "lone surrogate": '{"\\ud800":{' + GOOD + "}}",
    "lone surrogate in dtype": '{"x":{"dtype":"\\udc00","shape":[3],"data_offsets":[0,3]}}',
    "control character": '{"x\n":{' + GOOD + "}}",
    "bad escape": '{"\\x":{' + GOOD + "}}",
    "deep entry": '{"x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep value": '{"x":{"y":' + "[" * 3000 + "]" * 3000 + "," + GOOD + "}}",
    "deep metadata": '{"__metadata__":' + '{"a":' * 50_000 + "1" + "}" * 50_001,
    "endless name": '{"' + "x" * 70_000 + '":{' + GOOD + "}}",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_header_is_refused(what: str) -> None:
    with pytest.raises(FormatError):
        read(Safetensors(), safetensors_of(MALFORMED[what], b"abc"))


def test_the_entry_that_malformed_headers_are_made_from_is_itself_accepted() -> None:
    assert places(Safetensors(), safetensors_of('{"x":{' + GOOD + "}}", b"abc")) == {"x": b"abc"}


def test_a_header_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(FormatError, match="UTF-8"):
        read(Safetensors(), safetensors_of(b'{"\xff":{' + GOOD.encode() + b"}}", b"abc"))


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 2**63, 2**64 - 1])
def test_a_header_length_out_of_bounds_is_not_claimed(length: int) -> None:
    head = length.to_bytes(8, "little") + b"{}" + bytes(6)
    assert not Safetensors().claims("x.safetensors", head)
    with pytest.raises(FormatError):
        read(Safetensors(), head)


def test_it_claims_by_content_not_by_suffix() -> None:
    data = safetensors_of("{}")
    assert Safetensors().claims("blobs/0a1b2c", data[:16])
    assert not Safetensors().claims("x.safetensors", b"\x80\x02}q\x00(X\x05\x00\x00\x00mode")


def test_a_header_of_a_hundred_thousand_tensors_is_read() -> None:
    header = {f"layers.{index}.w": entry(4 * index, 4 * index + 4, "F32", [1]) for index in range(100_000)}
    spans = read(Safetensors(), safetensors_of(json.dumps(header), np.zeros(400_000, np.uint8).tobytes()))
    assert len(spans) == 100_000
