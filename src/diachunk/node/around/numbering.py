"""Bits on the wire and items of a session: P5 counts the distinct digests of the whole manifest."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.manifest.statement import Shared
from diachunk.schedule.work import WorkList

NOT_WANTED = -1


class Numbering:
    """Number of each distinct digest of a manifest, in order of first appearance."""

    def __init__(self, manifest: Shared) -> None:
        self._number: dict[Digest, int] = {}
        for _, file in manifest.walk():
            for _, digest in file.chunks:
                self._number.setdefault(digest, len(self._number))
        self.bits = len(self._number)

    def of(self, work: WorkList) -> Mapped:
        return Mapped(
            self.bits, [self._number.get(work.digest(item), NOT_WANTED) for item in range(len(work))]
        )


class Mapped:
    """Both directions between the numbers of a manifest and the items of one session."""

    def __init__(self, bits: int, number_of: Iterable[int]) -> None:
        self.bits = bits
        self.number_of = array("i", number_of)
        self.item_of = array("i", [NOT_WANTED]) * bits
        for item, number in enumerate(self.number_of):
            if number != NOT_WANTED:
                self.item_of[number] = item
        self._same = len(self.number_of) == bits and all(a == b for a, b in enumerate(self.number_of))

    def bitmap(self, packed: bytes | bytearray) -> Bitmap:
        """The items among the numbers whose bit is set."""
        size = len(self.number_of)
        if self._same:
            return Bitmap.from_bytes(bytes(packed), size)
        ones = int.from_bytes(packed, "little").bit_count()
        if ones == self.bits:
            return Bitmap.full(size)
        if ones < self.bits // 16:
            return Bitmap(size, self.items(Bitmap.from_bytes(bytes(packed), self.bits)))
        # As text, a character a bit: the one way without a loop of our own. Binary digits convert in linear time.
        digits = format(int.from_bytes(packed, "little"), f"0{self.bits}b")[::-1] + "0"
        picked = "".join(map(digits.__getitem__, self.number_of))  # NOT_WANTED picks the "0" at the end
        value = int(picked[::-1] or "0", 2)
        return Bitmap.from_bytes(value.to_bytes((size + 7) // 8, "little"), size)

    def items(self, numbers: Iterable[int]) -> Iterator[int]:
        return (item for number in numbers if (item := self.item_of[number]) != NOT_WANTED)

    def under_way(self, taking: Mapping[int, int]) -> dict[int, int]:
        """By item, what is by number on the wire."""
        return {
            self.item_of[number]: size
            for number, size in taking.items()
            if self.item_of[number] != NOT_WANTED
        }

    def pairs(self, under_way: Mapping[int, int], most: int) -> tuple[tuple[int, int], ...]:
        """By number, what is by item here."""
        known = ((self.number_of[item], size) for item, size in under_way.items())
        return tuple(islice((pair for pair in known if pair[0] != NOT_WANTED), most))
