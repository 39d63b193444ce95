"""Where tensors go: host memory, an accelerator; what the lanes need of either. `finding` makes one of "cuda:1"."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from diachunk.errors import LoadError
from diachunk.limits import CHUNK_BYTES
from diachunk.loader.dtypes import short
from diachunk.loader.host import Slabs
from diachunk.loader.memory import available_bytes, own_bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, start + size) of a lane's buffer and the elements that they become.

    `target` has one dimension and as many elements as the bytes have of `dtype`; its own dtype is the wanted one.
    """

    start: int
    size: int
    dtype: torch.dtype
    target: torch.Tensor


class Desk(Protocol):
    """One lane's way onto a device. Used by that lane alone.

    Contract: what `buffer` gives is written to by the lane, then handed over with `put`; from then on the bytes are
    the desk's until `buffer` gives them out again. `done` is called once the pieces are in place on the device, at
    once or during a later call; after `settle` all have been.
    """

    def buffer(self) -> memoryview:
        """CHUNK_BYTES of host memory that no copy reads any more; waits for one."""
        ...

    def put(self, pieces: Sequence[Piece], done: Callable[[], None]) -> None:
        """Copies, and casts, pieces of the buffer given last."""
        ...

    def settle(self) -> None:
        """Waits until everything put is in place, and lets go of its buffers."""
        ...


class Device(Protocol):
    """A place for tensors.

    Attributes:
        label: as people write it, "cuda:1".
        is_host: its memory is this process's own, so that lanes may read into a tensor directly.
        staging_bytes: of its memory, what a lane takes to cast.
    """

    label: str
    is_host: bool
    staging_bytes: int

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """A new tensor of one dimension, its values undefined.

        Raises:
            RuntimeError, MemoryError: as torch does, if there is no room.
        """
        ...

    def desk(self) -> Desk: ...

    def lacks(self, dtype: torch.dtype) -> bool:
        """Whether tensors of this dtype cannot be on it."""
        ...

    def available_bytes(self) -> int | None:
        """What it has room for; None if nobody can tell."""
        ...

    def used_bytes(self) -> int:
        """What this process takes of it now."""
        ...


def host_view(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous host tensor, writable. The caller keeps the tensor alive."""
    size = tensor.numel() * tensor.dtype.itemsize
    if not size:
        return memoryview(bytearray())
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as uint8, one dimension."""
    return tensor.view(torch.uint8)


class _Staging:
    """One buffer, made when it is first used."""

    def __init__(self) -> None:
        self.tensor: torch.Tensor | None = None

    def view(self) -> memoryview:
        if self.tensor is None:
            self.tensor = torch.empty(CHUNK_BYTES, dtype=torch.uint8, device="cpu")
        return host_view(self.tensor)

    def elements(self, piece: Piece) -> torch.Tensor:
        assert self.tensor is not None
        data = self.tensor[piece.start : piece.start + piece.size]
        # Chunks may begin anywhere in a file; a view of wider elements has to start at a multiple of them.
        width = piece.dtype.itemsize
        if data.storage_offset() % width or data.data_ptr() % width:
            data = data.clone()
        return data.view(piece.dtype)


class PlainDesk:
    """Copies at once: onto the host, and onto devices that have no pinned memory and no streams of ours."""

    def __init__(self) -> None:
        self._staging = _Staging()

    def buffer(self) -> memoryview:
        return self._staging.view()

    def put(self, pieces: Sequence[Piece], done: Callable[[], None]) -> None:
        for piece in pieces:
            piece.target.copy_(self._staging.elements(piece))
        done()

    def settle(self) -> None:
        return


class Host:
    """The memory of this process."""

    label = "cpu"
    is_host = True
    staging_bytes = 0

    def __init__(self) -> None:
        self._slabs = Slabs()

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        return self._slabs.allocate(elements, dtype)

    def desk(self) -> Desk:
        return PlainDesk()

    def lacks(self, dtype: torch.dtype) -> bool:
        return False

    def available_bytes(self) -> int | None:
        return available_bytes()

    def used_bytes(self) -> int:
        return own_bytes()


class Other:
    """Any other device of torch's, by plain copies: mps, xpu."""

    is_host = False
    staging_bytes = CHUNK_BYTES  # torch's own copy, in the dtype of the file

    def __init__(self, device: torch.device) -> None:
        self.label = str(device)
        self._device = device

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(elements, dtype=dtype, device=self._device)

    def desk(self) -> Desk:
        return PlainDesk()

    def lacks(self, dtype: torch.dtype) -> bool:
        return is_lacking(dtype, self._device)

    def available_bytes(self) -> int | None:
        return available_bytes() if self._device.type == "mps" else None

    def used_bytes(self) -> int:
        return torch.mps.current_allocated_memory() if self._device.type == "mps" else 0


def is_lacking(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether torch makes no tensor of this dtype there. A device that is full, or broken, does not lack it.

    Raises:
        RuntimeError: of a device that fails: what an earlier kernel did wrong is told to whoever asks next.
    """
    try:
        torch.empty(1, dtype=dtype, device=device)
    except torch.OutOfMemoryError:
        return False
    except _BROKEN:
        raise
    except (TypeError, RuntimeError):
        return True
    return False


# torch before 2.8 has only RuntimeError for it
_BROKEN: type[RuntimeError] | tuple[()] = getattr(torch, "AcceleratorError", ())


def check_dtypes(device: Device, dtypes: Sequence[torch.dtype]) -> None:
    """Whether the device has them all.

    Raises:
        LoadError: it lacks one.
    """
    for dtype in dict.fromkeys(dtypes):
        if device.lacks(dtype):
            raise LoadError(
                f"{device.label} has no {short(dtype)}", hint="choose another --dtype, or --device cpu"
            )
