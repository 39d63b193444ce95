"""A set of small integers, one bit each, LSB first: the have-bitmap of the design."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Bitmap:
    """Bits 0 .. length-1. Bit i of the packed form is bit (i & 7) of byte (i >> 3)."""

    __slots__ = ("_bits", "length")

    def __init__(self, length: int, ones: Iterable[int] = ()) -> None:
        self.length = length
        self._bits = bytearray((length + 7) // 8)
        for index in ones:
            self.add(index)

    @classmethod
    def full(cls, length: int) -> Bitmap:
        bitmap = cls(length)
        bitmap._bits = bytearray(b"\xff" * len(bitmap._bits))
        bitmap._trim()
        return bitmap

    @classmethod
    def from_bytes(cls, packed: bytes, length: int) -> Bitmap:
        """Reads the packed form.

        Raises:
            ValueError: wrong length, or a bit past the end is set.
        """
        if len(packed) != (length + 7) // 8:
            raise ValueError(f"a bitmap of {length} bits takes {(length + 7) // 8} bytes, not {len(packed)}")
        bitmap = cls(length)
        bitmap._bits = bytearray(packed)
        bitmap._trim()
        if bitmap._bits != packed:
            raise ValueError("a bit past the end of the bitmap is set")
        return bitmap

    def _trim(self) -> None:
        if self.length & 7:
            self._bits[-1] &= (1 << (self.length & 7)) - 1

    def to_bytes(self) -> bytes:
        return bytes(self._bits)

    def add(self, index: int) -> None:
        if not 0 <= index < self.length:
            raise IndexError(index)
        self._bits[index >> 3] |= 1 << (index & 7)

    def discard(self, index: int) -> None:
        if not 0 <= index < self.length:
            raise IndexError(index)
        self._bits[index >> 3] &= ~(1 << (index & 7)) & 0xFF

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.length and bool(self._bits[index >> 3] >> (index & 7) & 1)

    def __len__(self) -> int:
        """How many bits are set."""
        return int.from_bytes(self._bits, "little").bit_count()

    def __iter__(self) -> Iterator[int]:
        for position, byte in enumerate(self._bits):
            while byte:
                low = byte & -byte
                yield position * 8 + low.bit_length() - 1
                byte ^= low

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitmap) and self.length == other.length and self._bits == other._bits

    def __hash__(self) -> int:
        raise TypeError("a Bitmap can change")

    def __repr__(self) -> str:
        return f"<Bitmap {len(self)}/{self.length}>"
