"""CUDA for `queued`: pinned memory, a side stream a lane, events.

Tensors are allocated on the caller's stream, because that is where they are used and freed; the side streams wait for
it, so that they write nothing that its kernels still read. Whoever gets a tensor gets it after its last event.
"""

from __future__ import annotations

from typing import Any

import torch

from diachunk.loader.device import is_lacking
from diachunk.loader.queued import Mark, Queue

# torch leaves these two without types
_Stream: Any = torch.cuda.Stream
_Event: Any = torch.cuda.Event


class CudaQueues:
    """`queued.Queues` of one CUDA device, for one load."""

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self.label = f"cuda:{index}"
        self._caller = torch.cuda.current_stream(self.device)

    def pinned(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        with torch.cuda.stream(self._caller):
            return torch.empty(elements, dtype=dtype, device=self.device)

    def queue(self) -> Queue:
        # The current stream is a thread's own. An element that two chunks cut in two is copied by the lane itself:
        # after what the caller's kernels still do with that memory, not beside it on the default stream.
        torch.cuda.set_stream(self._caller)
        return CudaQueue(self.device, self._caller)

    def lacks(self, dtype: torch.dtype) -> bool:
        return is_lacking(dtype, self.device)

    def available_bytes(self) -> int | None:
        free, _ = torch.cuda.mem_get_info(self.device)
        # What torch keeps for itself and does not use is there to be taken, too.
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + kept

    def used_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device)


class CudaQueue:
    """A side stream."""

    def __init__(self, device: torch.device, caller: Any) -> None:
        self._stream: Any = _Stream(device)
        self._caller = caller

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        self._stream.wait_stream(self._caller)
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        event = _Event(blocking=True)  # who waits sleeps: the cores have chunks to hash
        event.record(self._stream)
        return CudaMark(event)


class CudaMark:
    """An event."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def reached(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()
