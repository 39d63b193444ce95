"""The reader of GGUF headers, on any bytes."""

from __future__ import annotations

import struct

from diachunk.formats.gguf import Gguf
from format_files import GgufTensor, gguf_of, pair, text
from fuzz.targets._formats import read_with

DICTIONARY = (b"GGUF\3\0\0\0", b"general.alignment", b"\x09\0\0\0", b"\x08\0\0\0", b"\0" * 8, b"\xff" * 8,
    b"\1\0\0\0\0\0\0\0", b"\x20\0\0\0", b"\4\0\0\0")  # fmt: skip
_READER = Gguf()


def fuzz_one(data: bytes) -> None:
    read_with(_READER, data)


def seeds() -> list[bytes]:
    strings = struct.pack("<IQ", 8, 2) + text(b"a") + text(b"b")
    nested = struct.pack("<IQ", 9, 1) * 17 + struct.pack("<IQ", 4, 0)
    empty_arrays = struct.pack("<IQ", 9, 300) + struct.pack("<IQ", 0, 0) * 300
    tensors = [GgufTensor(b"a", 0, (2,), 0), GgufTensor(b"b", 999, (2,), 32)]
    large = [GgufTensor(b"q", 12, (256, 20_000), 0), GgufTensor(b"r", 30, (), 2_880_000)]
    aligned = pair(b"general.alignment", 4, struct.pack("<I", 64))
    return [
        b"\0" + gguf_of(tensors, bytes(50), [pair(b"k", 9, strings), aligned], 64),
        b"\4" + gguf_of(large, b"", [pair(b"n", 8, text(b"x"))]),
        b"\0" + gguf_of([], b"", [pair(b"k", 9, nested)]),
        b"\0" + gguf_of([], b"", [pair(b"k", 9, empty_arrays)]),
        b"\5" + b"GGUF" + struct.pack("<IQQ", 3, 1_000_000, 0),
        b"\5" + gguf_of([], b"", [pair(b"k", 8, struct.pack("<Q", 90_000_000))]),
        b"\0" + gguf_of([GgufTensor(b"%d" % number, 24, (), 0) for number in range(100)]),
    ]
