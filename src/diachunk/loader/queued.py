"""Devices that copy while the host goes on: pinned buffers, reused; a queue (stream) a lane; casts on the device.

What is particular to a kind of device is behind `Queues`, so that this pipeline runs, and is tested, without one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from diachunk.limits import CHUNK_BYTES
from diachunk.loader.device import Desk, Piece, as_bytes, host_view

BUFFERS_A_LANE = 2
"""One is filled and hashed while the other is copied."""
RAW_BYTES = 2 * CHUNK_BYTES
"""Room for the padding, too: every piece that is to be cast starts where any dtype may."""
_ALIGNED_BYTES = 16


class Mark(Protocol):
    """A point in a queue."""

    def reached(self) -> bool: ...

    def wait(self) -> None: ...


class Queue(Protocol):
    """Work that the device does in order, behind the host's back."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """`target.copy_(source)`, whatever their devices and dtypes; source must not change until a later mark."""
        ...

    def mark(self) -> Mark: ...


class Queues(Protocol):
    """One kind of device. The suite that each must pass is tests/fixtures/queues_contract.py; `finding` makes it of a
    name.

    Attributes:
        label: what torch.device takes: "cuda:1".
    """

    label: str

    def pinned(self, size: int) -> torch.Tensor:
        """Host memory (uint8) that the device can read by itself."""
        ...

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """Memory of the device; work queued from now on comes after whatever used it before."""
        ...

    def queue(self) -> Queue:
        """A new one, for the thread that calls; what that thread copies by itself comes in the caller's order."""
        ...

    def lacks(self, dtype: torch.dtype) -> bool: ...

    def available_bytes(self) -> int | None: ...

    def used_bytes(self) -> int: ...


class Queued:
    """A `Device` over `Queues`."""

    is_host = False
    staging_bytes = BUFFERS_A_LANE * RAW_BYTES

    def __init__(self, queues: Queues) -> None:
        self.label = queues.label
        self._queues = queues

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        return self._queues.allocate(elements, dtype)

    def desk(self) -> Desk:
        return QueuedDesk(self._queues)

    def lacks(self, dtype: torch.dtype) -> bool:
        return self._queues.lacks(dtype)

    def available_bytes(self) -> int | None:
        return self._queues.available_bytes()

    def used_bytes(self) -> int:
        return self._queues.used_bytes()


@dataclass(slots=True)
class _Slot:
    """A pinned buffer, and the device's own for what is to be cast there."""

    pinned: torch.Tensor
    raw: torch.Tensor | None = None
    mark: Mark | None = None
    done: Callable[[], None] | None = None


class QueuedDesk:
    """A small ring of buffers and one queue."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._queue = queues.queue()
        self._free: list[_Slot] = []
        self._busy: deque[_Slot] = deque()
        self._made = 0
        self._current: _Slot | None = None

    def buffer(self) -> memoryview:
        while self._busy and self._reached(self._busy[0]):
            self._reap()
        if self._current is None:
            self._current = self._take()
        return host_view(self._current.pinned)

    def _take(self) -> _Slot:
        if not self._free and self._made < BUFFERS_A_LANE:
            self._made += 1
            return _Slot(self._queues.pinned(CHUNK_BYTES))
        if not self._free:
            self._reap()
        return self._free.pop()

    @staticmethod
    def _reached(slot: _Slot) -> bool:
        return slot.mark is None or slot.mark.reached()

    def _reap(self) -> None:
        """Takes back the buffer that has been under way longest."""
        slot = self._busy.popleft()
        if slot.mark is not None:
            slot.mark.wait()
        done, slot.mark, slot.done = slot.done, None, None
        self._free.append(slot)
        if done is not None:
            done()

    def put(self, pieces: Sequence[Piece], done: Callable[[], None]) -> None:
        slot, self._current = self._current, None
        assert slot is not None
        self._busy.append(slot)
        try:
            self._send(slot, pieces)
        finally:
            # Also after an error: the device may still be reading this buffer, and writing to tensors.
            slot.mark = self._queue.mark()
        slot.done = done

    def _send(self, slot: _Slot, pieces: Sequence[Piece]) -> None:
        at = 0
        for piece in pieces:
            part = slot.pinned[piece.start : piece.start + piece.size]
            if piece.target.dtype == piece.dtype:
                self._queue.copy(part, as_bytes(piece.target))
                continue
            if slot.raw is None:
                slot.raw = self._queues.allocate(RAW_BYTES, torch.uint8)
            if at + piece.size > slot.raw.numel():
                at = 0
            raw = slot.raw[at : at + piece.size]
            at += -(-piece.size // _ALIGNED_BYTES) * _ALIGNED_BYTES
            self._queue.copy(part, raw)
            self._queue.copy(raw.view(piece.dtype), piece.target)

    def settle(self) -> None:
        while self._busy:
            self._reap()
        self._free.clear()
        self._current, self._made = None, 0
