"""Reads GGUF headers (versions 2 and 3, little-endian).

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, the counts, key-value
pairs, one record a tensor, padding to `general.alignment`, then the data. Values are skipped, not kept: a
tokenizer in there has hundreds of thousands of strings.
"""

from __future__ import annotations

import math
import struct

from diachunk.formats.base import FormatError, RandomAccess, TensorSpan
from diachunk.formats.spans import HEADER_BYTES_MAX, TENSORS_MAX, check_name, in_order

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_BUFFER_BYTES = 256 * 1024
_DIMENSIONS_MAX = 8
_DEPTH_MAX = 16
_NAME_BYTES_MAX = 65_535
_ALIGNMENT_KEY = b"general.alignment"
_ALIGNMENT_DEFAULT, _ALIGNMENT_STEP, _ALIGNMENT_MAX = 32, 8, 1 << 20

_UINT32, _STRING, _ARRAY = 4, 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_LEAST_BYTES = _SCALAR_BYTES | {_STRING: 8, _ARRAY: 12}

# ggml type: (its name, elements in a block, bytes of a block). The table belongs to the rule tensor-4m/1: a
# type added here would cut published files anew, so that takes a new rule. A type that is not here (such as
# Q8_1, whose size the sources do not agree on) gets the bytes up to the next tensor, padding included.
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip


class Gguf:
    """The reader of `.gguf`."""

    name = "gguf"

    def claims(self, path: str, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        cursor = _Cursor(file)
        if cursor.take(4) != _MAGIC:
            raise FormatError("no GGUF magic")
        version = cursor.uint32()
        if version not in _VERSIONS:
            raise FormatError(f"GGUF version {version} (or big-endian) is not read")
        count, pairs = cursor.uint64(), cursor.uint64()
        if count > TENSORS_MAX:
            raise FormatError(f"{count} tensors are over the limit of {TENSORS_MAX}")
        alignment = _read_pairs(cursor, pairs)
        infos = [_read_info(cursor) for _ in range(count)]
        if len({info.name for info in infos}) != count:
            raise FormatError("two tensors have one name")
        return _place(infos, -(-cursor.position // alignment) * alignment, alignment, file.size)


class _Cursor:
    """Reads forward through a buffer; what is skipped is not read."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self._end = min(file.size, HEADER_BYTES_MAX)
        self._buffer = b""
        self._buffer_start = 0
        self.position = 0

    def skip(self, size: int) -> None:
        if size > self._end - self.position:
            raise FormatError("the header is longer than the file, or than a header may be")
        self.position += size

    def take(self, size: int) -> bytes:
        start = self.position
        self.skip(size)
        at = start - self._buffer_start
        if at + size > len(self._buffer):
            wanted = min(max(size, _BUFFER_BYTES), self._end - start)
            self._buffer, self._buffer_start, at = self._file.read_at(start, wanted), start, 0
            if len(self._buffer) < size:
                raise FormatError("the file ends inside its header")
        return self._buffer[at : at + size]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def uint64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def string(self) -> bytes:
        size = self.uint64()
        if size > _NAME_BYTES_MAX:
            raise FormatError(f"a name of {size} bytes")
        return self.take(size)

    def skip_strings(self, count: int) -> None:
        for _ in range(count):
            self.skip(self.uint64())

    def expect_items(self, count: int, kind: int) -> None:
        """Refuses a count that the rest of the header has no room for, before it drives a loop."""
        least = _LEAST_BYTES.get(kind)
        if least is None:
            raise FormatError(f"a value of unknown type {kind}")
        if count * least > self._end - self.position:
            raise FormatError(f"{count} values of type {kind} do not fit into the header")


def _read_pairs(cursor: _Cursor, count: int) -> int:
    """Skips the key-value pairs but for the alignment, which it returns."""
    alignment = None
    cursor.expect_items(count, _ARRAY)
    for _ in range(count):
        key, kind = cursor.string(), cursor.uint32()
        if key != _ALIGNMENT_KEY:
            _skip_value(cursor, kind, 0)
            continue
        if alignment is not None or kind != _UINT32:
            raise FormatError("general.alignment stands twice, or is no uint32")
        alignment = cursor.uint32()
        if not 0 < alignment <= _ALIGNMENT_MAX or alignment % _ALIGNMENT_STEP:
            raise FormatError(f"general.alignment is {alignment}")
    return _ALIGNMENT_DEFAULT if alignment is None else alignment


def _skip_value(cursor: _Cursor, kind: int, depth: int) -> None:
    if kind == _STRING:
        cursor.skip_strings(1)
    elif kind == _ARRAY:
        if depth == _DEPTH_MAX:
            raise FormatError(f"arrays are nested over {_DEPTH_MAX} deep")
        item_kind, count = cursor.uint32(), cursor.uint64()
        cursor.expect_items(count, item_kind)
        if item_kind == _STRING:
            cursor.skip_strings(count)
        elif item_kind == _ARRAY:
            for _ in range(count):
                _skip_value(cursor, _ARRAY, depth + 1)
        else:
            cursor.skip(count * _SCALAR_BYTES[item_kind])
    else:
        cursor.expect_items(1, kind)
        cursor.skip(_SCALAR_BYTES[kind])


def _read_info(cursor: _Cursor) -> TensorSpan:
    """One tensor's record, as a span whose offset counts from the data's start; size -1 if unknown."""
    try:
        name = check_name(cursor.string().decode())
    except UnicodeDecodeError as error:
        raise FormatError("a tensor's name is not UTF-8") from error
    dimensions = cursor.uint32()
    if dimensions > _DIMENSIONS_MAX:
        raise FormatError(f"tensor {name!r:.80} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
    kind, offset = cursor.uint32(), cursor.uint64()
    if kind not in _TYPES:
        return TensorSpan(name, f"type {kind}", shape, offset, -1)
    dtype, block_items, block_bytes = _TYPES[kind]
    if (shape[0] if shape else 1) % block_items:
        raise FormatError(f"tensor {name!r:.80}: rows of {shape[:1]} do not divide into blocks of {dtype}")
    return TensorSpan(name, dtype, shape, offset, math.prod(shape) // block_items * block_bytes)


def _place(infos: list[TensorSpan], data_start: int, alignment: int, file_size: int) -> list[TensorSpan]:
    """Moves the records to where they lie in the file and fills in the sizes that the type did not tell."""
    infos.sort(key=lambda info: (info.offset, info.size, info.name))
    spans = []
    next_start = file_size
    for info in reversed(infos):
        start = data_start + info.offset
        if info.offset % alignment:
            raise FormatError(f"tensor {info.name!r:.80} is not aligned to {alignment} bytes")
        size = next_start - start if info.size < 0 else info.size
        spans.append(TensorSpan(info.name, info.dtype, info.shape, start, size))
        next_start = start if size else next_start
    return in_order(spans, file_size)
