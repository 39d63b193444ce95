"""The packed have-bitmap: read whole or refused, and a set of integers afterwards."""

from __future__ import annotations

import struct

from diachunk.bitmap import Bitmap
from fuzz.checks import bounded

DICTIONARY: tuple[bytes, ...] = ()


def fuzz_one(data: bytes) -> None:
    """Two bytes of length, then the packed form; a second reading takes the length from the bytes given."""
    length = int.from_bytes(data[:2], "little")
    packed = data[2:]
    for bits in (length, 8 * len(packed), 8 * len(packed) - length % 8):
        if bits >= 0:
            _read(packed, bits)


def _read(packed: bytes, length: int) -> None:
    bitmap, _ = bounded(lambda: Bitmap.from_bytes(packed, length), len(packed), errors=(ValueError,))
    number = int.from_bytes(packed, "little")
    fits = len(packed) == (length + 7) // 8 and number >> length == 0
    assert (bitmap is not None) == fits
    if bitmap is None:
        return
    ones = [index for index in range(length) if number >> index & 1]
    assert (bitmap.to_bytes(), list(bitmap), len(bitmap)) == (packed, ones, len(ones))
    assert bitmap == Bitmap(length, ones)
    for index in (-1, length, *ones[:3]):
        assert (index in bitmap) == (index in ones[:3])
    for index in ones:
        bitmap.discard(index)
    assert bitmap == Bitmap(length)
    assert not len(bitmap)


def seeds() -> list[bytes]:
    sizes = (0, 1, 7, 8, 9, 300)
    full = [struct.pack("<H", size) + Bitmap.full(size).to_bytes() for size in sizes]
    return [*full, *(struct.pack("<H", size) + Bitmap(size, range(0, size, 3)).to_bytes() for size in sizes)]
