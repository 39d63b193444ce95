"""The reader of safetensors headers, on any bytes."""

from __future__ import annotations

import json

from diachunk.formats.safetensors import Safetensors
from format_files import entry, safetensors_of
from fuzz.targets._formats import read_with

DICTIONARY = (
    b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"', b'"F4"', b'"U8"', b'"C64"',
    b"[0,4]", b"[", b"]", b"{", b"}", b"\\ud800", b"18446744073709551615", b"1e9", b"NaN", b"-1",
)  # fmt: skip
_READER = Safetensors()


def fuzz_one(data: bytes) -> None:
    read_with(_READER, data)


def seeds() -> list[bytes]:
    plain = {"__metadata__": {"format": "pt"}, "a": entry(0, 4), "b": entry(4, 12, "F32", [1, 2])}
    large = {"big": entry(0, 4 << 20, "F32", [1024, 1024]), "é": entry(4 << 20, 4 << 20, "I8", [0])}
    numbers = ",".join(["99999999999999999999"] * 380)
    return [
        b"\0" + safetensors_of(plain, b"abcdefghijkl"),
        b"\4" + safetensors_of(large),
        b"\0" + safetensors_of(json.dumps(plain, indent=3), b"abcdefghijkl"),
        b"\0" + safetensors_of('{"a":{"dtype":"U8","shape":[' + numbers + '],"data_offsets":[0,1]}}', b"a"),
        b"\0" + safetensors_of('{"a":{"x":' + "[" * 900),
        b"\5" + (100_000_000).to_bytes(8, "little") + b"{",
        b"\0" + safetensors_of('{"' + "a" * 3000 + '":' + " " * 3000),
    ]
