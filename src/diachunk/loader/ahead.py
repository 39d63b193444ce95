"""Pages of files that will be mapped, brought into the page table while one core reads headers and others are idle.

To touch a gigabyte of mapped pages for the first time takes 70 ms of CPU, as long as to read the header of a PyTorch
file; side by side that is half. Nothing is changed by it, and nothing waits for it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import queue
import sys
import threading

from diachunk.errors import StoreError
from diachunk.limits import MiB
from diachunk.loader.blob import Blob

_MADV_POPULATE_READ = 22
"""madvise(2), Linux 5.14: as if every page were read; an error where it would be SIGBUS."""
_STEP_BYTES = 64 * MiB
"""Five milliseconds: between two steps this thread waits for the interpreter's lock, for as long at most."""


class Ahead:
    """One thread for one load. `follow` and `stop` are called on the load's own."""

    def __init__(self) -> None:
        self._windows: queue.SimpleQueue[mmap.mmap | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, blob: Blob) -> None:
        """This file is going to be mapped as a whole, if it can be."""
        if not blob.mappable or _madvise is None or (os.cpu_count() or 1) < 2:
            return
        try:
            window = blob.window()
        except StoreError:
            return  # whoever needs it says so
        self._windows.put(window)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="diachunk-ahead", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no memory for one more stack, or a limit on threads
                self._stopped.set()

    def stop(self) -> None:
        """No more of it. What is under way, one step, ends by itself."""
        self._stopped.set()
        self._windows.put(None)

    def _run(self) -> None:
        while not self._stopped.is_set() and (window := self._windows.get()) is not None:
            self._bring(window)

    def _bring(self, window: mmap.mmap) -> None:
        held = ctypes.c_char.from_buffer(window)  # keeps it mapped
        start, size = ctypes.addressof(held), len(window)
        for at in range(0, size, _STEP_BYTES):
            if self._stopped.is_set() or _populate(start + at, min(_STEP_BYTES, size - at)):
                return


def _populate(start: int, size: int) -> int:
    return 0 if _madvise is None else int(_madvise(start, size, _MADV_POPULATE_READ))


def _find_madvise() -> ctypes._NamedFuncPointer | None:
    """By ctypes: mmap's own method holds the interpreter's lock meanwhile."""
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


_madvise = _find_madvise()
