"""Writes generated tensors as safetensors files, sharded sets of them, and PyTorch zip files (`.pth`).

Own writers, streaming, without torch or the safetensors library: those build whole checkpoints in memory, and
their bytes vary with their version.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import BinaryIO, TypeAlias

from diachunk.testing.weights import DTYPE_BYTES, TensorSpec, tensor_blocks

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of tensor bytes written since the last call."""

_STORAGES = {
    "F64": "DoubleStorage",
    "I64": "LongStorage",
    "F32": "FloatStorage",
    "I32": "IntStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I16": "ShortStorage",
    "I8": "CharStorage",
    "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}
_ALIGNMENT = 64  # of a storage in the file, as torch.save writes it, so that mmap gives aligned tensors
_UINT16_MAX = 0xFFFF
_UINT32_MAX = 0xFFFFFFFF
_DOS_EPOCH = 0x00210000  # 1980-01-01 00:00: no timestamps, since the bytes must not vary


def write_safetensors(
    path: Path,
    specs: Iterable[TensorSpec],
    *,
    seed: str,
    generation: int = 0,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes one safetensors file: tensors by falling element size, then by name, as the library orders them.

    Args:
        generation: added to each tensor's own.
        metadata: the header's `__metadata__`.
    """
    ordered = sorted(specs, key=lambda spec: (-DTYPE_BYTES[spec.dtype], spec.name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in ordered:
        end = offset + spec.size_bytes
        header[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec in ordered:
            for block in tensor_blocks(spec, seed=seed, generation=generation):
                file.write(block)
                if progress is not None:
                    progress(block.nbytes)


def write_sharded(
    directory: Path,
    specs: Sequence[TensorSpec],
    *,
    seed: str,
    max_shard_bytes: int,
    generation: int = 0,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes `model-0000I-of-0000N.safetensors` and `model.safetensors.index.json`; returns the shards.

    Tensors fill shards in the order given; a shard closes before the tensor that would bring it over
    `max_shard_bytes`, so only a single tensor can exceed it.
    """
    shards: list[list[TensorSpec]] = []
    used_bytes = 0
    for spec in specs:
        if not shards or used_bytes + spec.size_bytes > max_shard_bytes:
            shards.append([])
            used_bytes = 0
        shards[-1].append(spec)
        used_bytes += spec.size_bytes
    weight_map: dict[str, str] = {}
    paths = []
    for number, shard in enumerate(shards, 1):
        path = directory / f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(
            path, shard, seed=seed, generation=generation, metadata={"format": "pt"}, progress=progress
        )
        weight_map |= {spec.name: path.name for spec in shard}
        paths.append(path)
    index = {
        "metadata": {"total_size": sum(spec.size_bytes for spec in specs)},
        "weight_map": dict(sorted(weight_map.items())),
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return paths


def write_torch_zip(
    path: Path,
    specs: Sequence[TensorSpec],
    *,
    seed: str,
    generation: int = 0,
    progress: Progress | None = None,
) -> None:
    """Writes a `.pth` that `torch.load(path, weights_only=True)` reads as a dict of name to tensor."""
    with path.open("wb") as file:
        archive = _StoredZip(file)
        archive.add("archive/data.pkl", [_state_dict_pickle(specs)])
        archive.add("archive/byteorder", [b"little"])
        for number, spec in enumerate(specs):
            blocks = tensor_blocks(spec, seed=seed, generation=generation)
            archive.add(f"archive/data/{number}", _reported(blocks, progress))
        archive.add("archive/version", [b"3\n"])
        archive.finish()


def _reported(blocks: Iterator[memoryview], progress: Progress | None) -> Iterator[memoryview]:
    for block in blocks:
        yield block
        if progress is not None:
            progress(block.nbytes)


def _state_dict_pickle(specs: Sequence[TensorSpec]) -> bytes:
    """{name: _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())}, as pickle protocol 2.

    A storage is a persistent id, ("storage", its class, its key, "cpu", its element count).
    """
    out = bytearray(b"\x80\x02}(")  # PROTO 2, EMPTY_DICT, MARK
    for number, spec in enumerate(specs):
        strides = _strides(spec.shape)
        out += _text(spec.name)
        out += b"ctorch._utils\n_rebuild_tensor_v2\n("  # GLOBAL, MARK
        out += b"(" + _text("storage") + f"ctorch\n{_STORAGES[spec.dtype]}\n".encode()
        out += _text(str(number)) + _text("cpu") + _integer(spec.value_count) + b"tQ"  # TUPLE, BINPERSID
        out += _integer(0) + _integers(spec.shape) + _integers(strides)
        out += b"\x89ccollections\nOrderedDict\n)R"  # NEWFALSE, GLOBAL, EMPTY_TUPLE, REDUCE
        out += b"tR"  # TUPLE, REDUCE
    return bytes(out + b"u.")  # SETITEMS, STOP


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major, in elements."""
    inner_first = accumulate(shape[:0:-1], mul, initial=1)
    return tuple(inner_first)[::-1] if shape else ()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data  # BINUNICODE


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)  # BININT
    return b"\x8a\x08" + struct.pack("<q", value)  # LONG1


def _integers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(_integer(value) for value in values) + b"t"  # MARK, TUPLE


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    crc: int
    size: int
    offset: int


class _StoredZip:
    """A zip file of uncompressed, aligned entries (PKWARE APPNOTE 4.3), with ZIP64 records where needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries: list[_Entry] = []

    def add(self, name: str, blocks: Iterable[bytes | memoryview]) -> None:
        """Appends an entry. Its CRC and size are known at its end, when its header is written again."""
        encoded = name.encode()
        offset = self._file.tell()
        self._file.write(self._local_header(_Entry(encoded, 0, 0, offset)))
        crc = size = 0
        for block in blocks:
            crc = zlib.crc32(block, crc)
            size += len(block)
            self._file.write(block)
        if size > _UINT32_MAX:
            raise ValueError(f"{name}: an entry of over 4 GiB is not supported")
        entry = _Entry(encoded, crc, size, offset)
        end = self._file.tell()
        self._file.seek(offset)
        self._file.write(self._local_header(entry))
        self._file.seek(end)
        self._entries.append(entry)

    @staticmethod
    def _local_header(entry: _Entry) -> bytes:
        """Padded by an extra field ("FB", as torch does) so that the data that follows is aligned."""
        unpadded = 30 + len(entry.name) + 4
        padding_bytes = -(entry.offset + unpadded) % _ALIGNMENT
        fields = (0x04034B50, 20, 0, 0, _DOS_EPOCH, entry.crc, entry.size, entry.size)
        header = struct.pack("<IHHHIIIIHH", *fields, len(entry.name), 4 + padding_bytes)
        return header + entry.name + b"FB" + struct.pack("<H", padding_bytes) + b"Z" * padding_bytes

    def finish(self) -> None:
        """Writes the central directory and what ends a zip file."""
        start = self._file.tell()
        for entry in self._entries:
            extra = b"" if entry.offset < _UINT32_MAX else struct.pack("<HHQ", 1, 8, entry.offset)
            sizes = (entry.crc, entry.size, entry.size, len(entry.name), len(extra))
            tail = (0, 0, 0, 0, min(entry.offset, _UINT32_MAX))
            version = 45 if extra else 20
            header = (0x02014B50, version, version, 0, 0, _DOS_EPOCH)
            self._file.write(struct.pack("<IHHHHIIIIHHHHHII", *header, *sizes, *tail) + entry.name + extra)
        end = self._file.tell()
        count, size = len(self._entries), end - start
        if count >= _UINT16_MAX or start >= _UINT32_MAX:
            zip64 = (0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
            self._file.write(struct.pack("<IQHHIIQQQQ", *zip64))
            self._file.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        count, start = min(count, _UINT16_MAX), min(start, _UINT32_MAX)
        self._file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, start, 0))
