"""Builds checkpoint files byte by byte, so that tests can write what no library would."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diachunk.formats.base import BytesAccess, FormatReader, TensorSpan


def read(reader: FormatReader, data: bytes) -> list[TensorSpan]:
    return reader.tensors(BytesAccess(data))


def places(reader: FormatReader, data: bytes) -> dict[str, bytes]:
    """Each tensor's name with the bytes at its span."""
    return {span.name: data[span.offset : span.end] for span in read(reader, data)}


def safetensors_of(header: str | bytes | Mapping[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file of this header, however broken, and these data bytes."""
    if isinstance(header, Mapping):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, dtype: str = "U8", shape: Sequence[int] | None = None) -> dict[str, Any]:
    shape = [end - begin] if shape is None else shape
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def text(value: bytes) -> bytes:
    """A GGUF string."""
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    """A GGUF key-value pair."""
    return text(key) + struct.pack("<I", kind) + value


@dataclass(frozen=True, slots=True)
class GgufTensor:
    name: bytes
    kind: int
    dims: tuple[int, ...]
    offset: int

    def info(self) -> bytes:
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return text(self.name) + dims + struct.pack("<IQ", self.kind, self.offset)


def gguf_of(
    tensors: Sequence[GgufTensor],
    data: bytes = b"",
    pairs: Sequence[bytes] = (),
    alignment: int = 32,
    version: int = 3,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    head += b"".join(tensor.info() for tensor in tensors)
    return head + bytes(-len(head) % alignment) + data


@dataclass(slots=True)
class ZipEntry:
    """One entry of a hand-made zip file. What is None in the local header is as in the central one."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    local_extra: bytes = b""
    local_name: bytes | None = None
    local_method: int | None = None
    sizes_in_zip64: bool = False
    offset: int | None = None
    disk: int = 0
    packed: int | None = None
    size: int | None = None

    def local(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        method = self.method if self.local_method is None else self.local_method
        fields = (b"PK\x03\x04", 20, self.flags, method, 0, 0, 0, 0, 0, len(name), len(self.local_extra))
        return struct.pack("<4s5H3I2H", *fields) + name + self.local_extra + self.data

    def central(self, offset: int) -> bytes:
        offset = offset if self.offset is None else self.offset
        size = len(self.data) if self.size is None else self.size
        packed = size if self.packed is None else self.packed
        extra = b"\x34\x12\x02\x00ab"
        if self.sizes_in_zip64:
            extra += struct.pack("<2H3Q", 1, 24, size, packed, offset)
            size = packed = offset = 0xFFFFFFFF
        lengths = (len(self.name), len(extra), 0)
        fields = (
            b"PK\x01\x02",
            20,
            20,
            self.flags,
            self.method,
            0,
            0,
            0,
            packed,
            size,
            *lengths,
            self.disk,
            0,
            0,
        )
        return struct.pack("<4s6H3I5H2I", *fields, offset) + self.name + extra


@dataclass(slots=True)
class Zip:
    """A hand-made zip file, whose records can lie."""

    entries: list[ZipEntry]
    comment: bytes = b""
    zip64: bool = False
    saturated: bool = False
    changes: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        body, central = b"", b""
        for each in self.entries:
            central += each.central(len(body))
            body += each.local()
        facts = {
            "disk": 0,
            "count": len(self.entries),
            "size": len(central),
            "offset": len(body),
        } | self.changes
        out = body + central
        count, size, offset = facts["count"], facts["size"], facts["offset"]
        if self.zip64:
            record = (b"PK\x06\x06", 44, 45, 45, facts["disk"], 0, count, count, size, offset)
            locator = (b"PK\x06\x07", 0, facts.get("record", len(out)), 1)
            out += struct.pack("<4sQ2H2I4Q", *record) + struct.pack("<4sIQI", *locator)
            if self.saturated:
                size = offset = 0xFFFFFFFF
                count = 0xFFFF
            count, size, offset = min(count, 0xFFFF), min(size, 0xFFFFFFFF), min(offset, 0xFFFFFFFF)
            count = facts.get("short_count", count)
        fields = (b"PK\x05\x06", facts["disk"], 0, count, count, size, offset, len(self.comment))
        return out + struct.pack("<4s4H2IH", *fields) + self.comment
