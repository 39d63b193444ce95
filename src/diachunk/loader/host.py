"""Host memory that is quickly there, and one core a thread: what a lane on the CPU is fast by."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Callable

import torch

from diachunk.limits import MiB

_MADV_HUGEPAGE = 14
_WORTH_HUGE_BYTES = 4 * MiB
_SLAB_BYTES = 32 * MiB
_SMALL_BYTES = 64 * 1024
_ALIGNED_BYTES = 64


class Slabs:
    """Tensors in memory of huge pages. To touch a gigabyte of 4 KiB pages for the first time takes a quarter of a
    second, more than to read or to cast it.

    A large tensor has its own memory. Smaller ones lie side by side in slabs, since none of them would fill a huge
    page; a slab is freed with its last tensor. Each tensor has a storage of its own, of its own size. Not for
    several threads at once.
    """

    def __init__(self) -> None:
        self._advise = _huge_page_advice()
        self._slab: mmap.mmap | None = None
        self._used = 0

    def allocate(self, elements: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of one dimension, its values undefined.

        Raises:
            RuntimeError, MemoryError, OSError: no room.
        """
        size = elements * dtype.itemsize
        # The device is named each time: the caller may have set another default (`with torch.device("meta")`).
        if self._advise is None or size < _SMALL_BYTES:
            return torch.empty(elements, dtype=dtype, device="cpu")
        if size >= _WORTH_HUGE_BYTES:
            tensor = torch.empty(elements, dtype=dtype, device="cpu")
            self._advise(tensor.data_ptr(), size)
            return tensor
        if self._slab is None or self._used + size > _SLAB_BYTES:
            self._slab = self._new_slab()
            self._used = 0
        start, self._used = self._used, self._used + -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES
        return torch.frombuffer(self._slab, dtype=dtype, count=elements, offset=start)

    @staticmethod
    def _new_slab() -> mmap.mmap:
        try:
            slab = mmap.mmap(-1, _SLAB_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no {_SLAB_BYTES:,} bytes to be had: {error.strerror}") from error
        with contextlib.suppress(OSError):  # a kernel without huge pages
            slab.madvise(_MADV_HUGEPAGE)
        return slab


def _huge_page_advice() -> Callable[[int, int], None] | None:
    """madvise(MADV_HUGEPAGE) on what was just allocated; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def advise(address: int, size: int) -> None:
        start = (address + 4095) & ~4095
        call(start, (address + size - start) & ~4095, _MADV_HUGEPAGE)

    return advise


def one_core_each() -> None:
    """On this thread torch computes by itself from now on: lanes are what keeps the cores busy, and each of them with
    threads of OpenMP of its own would be several to a core. Nothing changes for the caller's threads.
    """
    if _openmp is not None:
        torch.get_num_threads()  # the first call on a thread sets what is set below
        _openmp(1)


def _openmp_threads() -> Callable[[int], None] | None:
    try:
        call = ctypes.CDLL(None).omp_set_num_threads
    except (OSError, AttributeError):
        return None  # another library for it, which then divides as it likes
    call.argtypes, call.restype = (ctypes.c_int,), None
    return call


_openmp = _openmp_threads()
