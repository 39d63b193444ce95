"""How large one write(2) should be: measured while writing, because machines differ by a factor of eight.

One write a chunk costs the fewest system calls. But a large write makes the kernel allocate large folios, and
a virtual machine that gives free memory back to its host has to fault those in again: there 4 MiB writes to
ext4 ran at 0.4 GB/s and 32 KiB ones at 2.7, while on tmpfs the small ones cost 40% (docs/benchmarks.md).
"""

from __future__ import annotations

from diachunk.limits import CHUNK_BYTES, KiB, MiB

CANDIDATES = (CHUNK_BYTES, 32 * KiB)
_PROBE_BYTES = 16 * MiB
_EXPLOIT_BYTES = 256 * MiB


class PieceSize:
    """Tries each size for a while, keeps to the faster one, and asks again from time to time.

    Called under the writer's lock.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._spent_s = [0.0] * len(CANDIDATES)
        self._written = [0] * len(CANDIDATES)
        self._current = 0
        self._probing = True
        self._left_bytes = _PROBE_BYTES

    @property
    def bytes(self) -> int:
        """The size to write in now."""
        return CANDIDATES[self._current]

    def took(self, size_bytes: int, seconds: float) -> None:
        """Says how long writing that much took in the current size."""
        self._spent_s[self._current] += seconds
        self._written[self._current] += size_bytes
        self._left_bytes -= size_bytes
        if self._left_bytes > 0:
            return
        if self._probing and self._current + 1 < len(CANDIDATES):
            self._current += 1
            self._left_bytes = _PROBE_BYTES
        elif self._probing:
            costs = [spent / written for spent, written in zip(self._spent_s, self._written, strict=True)]
            self._current = costs.index(min(costs))
            self._probing = False
            self._left_bytes = _EXPLOIT_BYTES
        else:
            self._start()
