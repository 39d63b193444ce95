"""What peers hold, so that the rarest of what one could bring is found in microseconds. Pure.

How many peers hold an item is a binary number, and bit k of all those numbers is one big integer, a plane: adding
a bitmap is a ripple carry over planes, and the items of least count among some are what is left when each plane,
from the top, takes away those that are set there, unless that is all of them. Items are cut into blocks, so that
one gain costs as little among a million items as among a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import and_

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
    """What one peer holds. `dry`: it was found to have nothing to take; so it stays until it gains something."""

    __slots__ = ("blocks", "dry", "items")

    def __init__(self, items: int) -> None:
        self.items = items
        self.blocks = [0] * -(-items // BLOCK)
        self.dry = False

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
        self._held: list[Held] = []

    # --- what is free --------------------------------------------------------------------------------------

    def taken(self, item: int, count: int = 1) -> None:
        """Items `item`, `item + 1`, ... are free no more."""
        for each in range(item, item + count):
            self._free[each >> BLOCK_BITS] &= ~(1 << (each & _MASK))

    def freed(self, item: int) -> None:
        self._free[item >> BLOCK_BITS] |= 1 << (item & _MASK)
        for held in self._held:
            held.dry = False

    # --- who holds what ------------------------------------------------------------------------------------

    def join(self) -> Held:
        """A peer, with nothing yet."""
        held = Held(self.items)
        self._held.append(held)
        return held

    def replace(self, held: Held, has: Bitmap | None, but: Iterable[int] = ()) -> None:
        """It holds exactly these (None: nothing), without those in `but`."""
        packed = has.to_bytes() if has is not None else b""
        for number, old in enumerate(held.blocks):
            at = number * (BLOCK // 8)
            new = int.from_bytes(packed[at : at + BLOCK // 8], "little")
            held.blocks[number] = new
            _add(self._planes[number], new & ~old)
            _subtract(self._planes[number], old & ~new)
        held.dry = False
        for item in but:
            self.lose(held, item)

    def gain(self, held: Held, item: int) -> bool:
        """It holds this as well. True if nobody did."""
        number, bit = item >> BLOCK_BITS, 1 << (item & _MASK)
        if held.blocks[number] & bit:
            return False
        held.blocks[number] |= bit
        held.dry = False
        fresh = not self.is_held(item)
        _add(self._planes[number], bit)
        return fresh

    def lose(self, held: Held, item: int) -> None:
        number, bit = item >> BLOCK_BITS, 1 << (item & _MASK)
        if held.blocks[number] & bit:
            held.blocks[number] ^= bit
            _subtract(self._planes[number], bit)

    def count(self, item: int) -> int:
        """How many peers hold it."""
        planes, at = self._planes[item >> BLOCK_BITS], item & _MASK
        return sum((plane >> at & 1) << power for power, plane in enumerate(planes))

    def is_held(self, item: int) -> bool:
        at = item & _MASK
        return any(plane >> at & 1 for plane in self._planes[item >> BLOCK_BITS])

    # --- choosing ------------------------------------------------------------------------------------------

    def rarest(self, held: Held) -> int | None:
        """One of the rarest free items that this peer holds, any of them with about equal chance."""
        if held.dry:
            return None
        blocks = held.blocks
        first = int(self._rng.random() * len(blocks))
        found: list[tuple[int, int, int]] = []
        for step in range(len(blocks)):
            number = (first + step) % len(blocks)
            bits = blocks[number] & self._free[number]
            if bits:
                found.append((*self._rarest_in(number, bits), number))
                if len(found) == _LOOKED_INTO:
                    break
        if not found:
            held.dry = True
            return None
        _, bits, number = min(found, key=lambda each: each[0])
        return number * BLOCK + _some_bit(bits, self._rng)

    def has_work(self, held: Held) -> bool:
        """Whether it holds a free item."""
        if not held.dry:
            held.dry = not any(map(and_, held.blocks, self._free))
        return not held.dry

    def _rarest_in(self, number: int, bits: int) -> tuple[int, int]:
        """The lowest count among these bits of a block, and those that have it."""
        count = 0
        planes = self._planes[number]
        for power in range(len(planes) - 1, -1, -1):
            without = bits & ~planes[power]
            if without:
                bits = without
            else:
                count |= 1 << power
        return count, bits

    def next_unheld(self, start: int) -> int:
        """The first free item from `start` on that no peer holds; -1 if there is none."""
        number, shift = start >> BLOCK_BITS, start & _MASK
        while number < len(self._free):
            bits = self._unheld(number) >> shift << shift
            if bits:
                return number * BLOCK + (bits & -bits).bit_length() - 1
            number, shift = number + 1, 0
        return -1

    def last_unheld(self, stop: int) -> int:
        """The last free item before `stop` that no peer holds; -1 if there is none."""
        number, size = stop >> BLOCK_BITS, stop & _MASK
        while number >= 0:
            bits = self._unheld(number) & ((1 << size) - 1) if size else 0
            if bits:
                return number * BLOCK + bits.bit_length() - 1
            number, size = number - 1, BLOCK
        return -1

    def _unheld(self, number: int) -> int:
        bits = self._free[number] if number < len(self._free) else 0
        for plane in self._planes[number] if bits else ():
            bits &= ~plane
        return bits


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


def _subtract(planes: list[int], bits: int) -> None:
    for power, plane in enumerate(planes):
        if not bits:
            break
        planes[power] = plane ^ bits
        bits &= ~plane
    while planes and not planes[-1]:
        planes.pop()
