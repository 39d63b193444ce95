"""What peers hold, so that the rarest of what one could bring is found in microseconds. Pure.

How many peers hold an item is a binary number, and bit k of all those numbers is one big integer, a plane: adding
a bitmap is a ripple carry over planes, and the items of least count among some are what is left when each plane,
from the top, takes away those that are set there, unless that is all of them. Items are cut into blocks, so that
one gain costs as little among a million items as among a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diachunk.bitmap import Bitmap
from diachunk.schedule.health import Rng

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
_MASK = BLOCK - 1
_LOOKED_INTO = 2
"""Blocks with something to take that one choice looks into: with more it would be the rarest of all."""
_AS_DIGITS = bytes([ord("1")]) + bytes([ord("0")]) * 255
"""Turns states into the text of a binary number: state 0 (FREE) is a one."""


class Held:
    """What one peer holds.

    Attributes:
        some: the blocks in which it may hold a free item, a bit each; one that was found empty is cleared.
    """

    __slots__ = ("blocks", "items", "some")

    def __init__(self, items: int) -> None:
        self.items = items
        self.blocks = [0] * -(-items // BLOCK)
        self.some = 0

    @property
    def dry(self) -> bool:
        """Whether it was found to have nothing to take; so it stays until it gains something."""
        return not self.some

    def __contains__(self, item: int) -> bool:
        return 0 <= item < self.items and bool(self.blocks[item >> BLOCK_BITS] >> (item & _MASK) & 1)

    def __len__(self) -> int:
        return sum(block.bit_count() for block in self.blocks)


class Holdings:
    """The free items and who holds them. Built once a peer exists: without any it costs nothing."""

    def __init__(self, state: bytearray, rng: Rng) -> None:
        self.items = len(state)
        self._rng = rng
        starts = range(0, self.items, BLOCK)
        self._free = [int(state[at : at + BLOCK][::-1].translate(_AS_DIGITS), 2) for at in starts]
        self._planes: list[list[int]] = [[] for _ in starts]
        self._known = [0] * len(starts)
        """What anybody holds: all planes of a block in one."""
        self._bare = (1 << len(starts)) - 1
        """The blocks in which a free item may be that nobody holds, a bit each; cleared once found empty."""
        self._held: list[Held] = []

    # --- what is free --------------------------------------------------------------------------------------

    def taken(self, item: int, count: int = 1) -> None:
        """Items `item`, `item + 1`, ... are free no more."""
        while count > 0:
            number, at = item >> BLOCK_BITS, item & _MASK
            here = min(count, BLOCK - at)
            free = self._free[number]
            self._free[number] = free ^ (free & ((1 << here) - 1) << at)
            item, count = item + here, count - here

    def freed(self, item: int) -> None:
        number, bit = item >> BLOCK_BITS, 1 << (item & _MASK)
        self._free[number] |= bit
        if not self._known[number] & bit:
            self._bare |= 1 << number
            return
        for held in self._held:
            if held.blocks[number] & bit:
                held.some |= 1 << number

    # --- who holds what ------------------------------------------------------------------------------------

    def join(self) -> Held:
        """A peer, with nothing yet."""
        held = Held(self.items)
        self._held.append(held)
        return held

    def replace(self, held: Held, has: Bitmap | None, but: Iterable[int] = ()) -> None:
        """It holds exactly these (None: nothing), without those in `but`."""
        packed = has.to_bytes() if has is not None else b""
        held.some = 0
        for number, old in enumerate(held.blocks):
            at = number * (BLOCK // 8)
            new = int.from_bytes(packed[at : at + BLOCK // 8], "little")
            held.blocks[number] = new
            _add(self._planes[number], new & ~old)
            self._known[number] |= new
            self._subtract(number, old & ~new)
            if new & self._free[number]:
                held.some |= 1 << number
        for item in but:
            self.lose(held, item)

    def gain(self, held: Held, item: int) -> bool:
        """It holds this as well. True if nobody did."""
        number, bit = item >> BLOCK_BITS, 1 << (item & _MASK)
        block = held.blocks[number]
        if block & bit:
            return False
        held.blocks[number] = block | bit
        held.some |= 1 << number
        known = self._known[number]
        _add(self._planes[number], bit)
        if known & bit:
            return False
        self._known[number] = known | bit
        return True

    def lose(self, held: Held, item: int) -> None:
        number, bit = item >> BLOCK_BITS, 1 << (item & _MASK)
        if held.blocks[number] & bit:
            held.blocks[number] ^= bit
            self._subtract(number, bit)

    def _subtract(self, number: int, bits: int) -> None:
        """One holder less of these."""
        if not bits:
            return
        planes = self._planes[number]
        for power, plane in enumerate(planes):
            planes[power] = plane ^ bits
            bits &= ~plane
            if not bits:
                break
        while planes and not planes[-1]:
            planes.pop()
        known = 0
        for plane in planes:
            known |= plane
        self._known[number] = known
        self._bare |= 1 << number

    def count(self, item: int) -> int:
        """How many peers hold it."""
        planes, at = self._planes[item >> BLOCK_BITS], item & _MASK
        return sum((plane >> at & 1) << power for power, plane in enumerate(planes))

    def is_held(self, item: int) -> bool:
        return bool(self._known[item >> BLOCK_BITS] >> (item & _MASK) & 1)

    # --- choosing ------------------------------------------------------------------------------------------

    def rarest(self, held: Held) -> int | None:
        """One of the rarest free items that this peer holds, any of them with about equal chance."""
        least, among, where, looked_into = 0, 0, 0, 0
        for number in _round(held.some, int(self._rng.random() * len(held.blocks))):
            bits = held.blocks[number] & self._free[number]
            if not bits:
                held.some ^= 1 << number
                continue
            count, bits = self._rarest_in(number, bits)
            if not looked_into or count < least:
                least, among, where = count, bits, number
            looked_into += 1
            if looked_into == _LOOKED_INTO:
                break
        return where * BLOCK + _some_bit(among, self._rng) if among else None

    def has_work(self, held: Held) -> bool:
        """Whether it holds a free item."""
        for number in _round(held.some, 0):
            if held.blocks[number] & self._free[number]:
                return True
            held.some ^= 1 << number
        return False

    def _rarest_in(self, number: int, bits: int) -> tuple[int, int]:
        """The lowest count among these bits of a block, and those that have it."""
        count = 0
        planes = self._planes[number]
        for power in range(len(planes) - 1, -1, -1):
            common = bits & planes[power]
            if common == bits:
                count |= 1 << power
            else:
                bits ^= common
        return count, bits

    def next_unheld(self, start: int) -> int:
        """The first free item from `start` on that no peer holds; -1 if there is none."""
        first, shift = start >> BLOCK_BITS, start & _MASK
        left = self._bare >> first << first
        while left:
            number = (left & -left).bit_length() - 1
            bits = self._unheld(number)
            if number == first:
                bits = bits >> shift << shift
            if bits:
                return number * BLOCK + (bits & -bits).bit_length() - 1
            left ^= 1 << number
        return -1

    def last_unheld(self, stop: int) -> int:
        """The last free item before `stop` that no peer holds; -1 if there is none."""
        last, size = stop >> BLOCK_BITS, stop & _MASK
        left = self._bare & (1 << last + 1) - 1
        while left:
            number = left.bit_length() - 1
            bits = self._unheld(number)
            if number == last:
                bits &= (1 << size) - 1
            if bits:
                return number * BLOCK + bits.bit_length() - 1
            left ^= 1 << number
        return -1

    def _unheld(self, number: int) -> int:
        """The free items of a block that nobody holds."""
        free = self._free[number]
        bits = free ^ (free & self._known[number])
        if not bits:
            self._bare &= ~(1 << number)
        return bits


def _round(blocks: int, start: int) -> Iterator[int]:
    """The numbers of the set bits, from `start` on, round the end."""
    ahead = blocks >> start << start
    for part in (ahead, blocks ^ ahead):
        left = part
        while left:
            low = left & -left
            yield low.bit_length() - 1
            left ^= low


def _some_bit(bits: int, rng: Rng) -> int:
    """The first set bit from a random place on, round the end."""
    start = int(rng.random() * bits.bit_length())
    above = bits >> start
    return start + (above & -above).bit_length() - 1


def _add(planes: list[int], bits: int) -> None:
    for power, plane in enumerate(planes):
        if not bits:
            return
        planes[power], bits = plane ^ bits, plane & bits
    if bits:
        planes.append(bits)
