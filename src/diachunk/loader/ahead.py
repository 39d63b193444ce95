"""Pages of files that will be mapped, touched while one core reads headers and others are idle.

To touch a gigabyte of mapped pages for the first time takes 70 ms of CPU, as long as to read the header of a PyTorch
file; side by side that is half. Nothing is changed by it, and nothing waits for it.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading

import torch

from diachunk.errors import StoreError
from diachunk.limits import MiB
from diachunk.loader.blob import Blob
from diachunk.loader.host import one_core_each

_APART_BYTES = 64 * 1024
"""The kernel brings that many around a page that is touched, if they are in its cache (fault_around_bytes)."""
_STEP_BYTES = 256 * MiB
"""Between two steps this thread waits for the interpreter's lock, five milliseconds at most: as long as 64 MiB take."""


class Ahead:
    """One thread for one load. `follow` and `stop` are called on the load's own.

    Not by madvise(MADV_POPULATE_READ): meanwhile no other thread of the process gets memory from the system, and the
    one that reads headers was slower by what this one gained.
    """

    def __init__(self) -> None:
        self._windows: queue.SimpleQueue[mmap.mmap | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, blob: Blob) -> None:
        """This file is going to be mapped as a whole, if it can be."""
        if not blob.mappable or (os.cpu_count() or 1) < 2:
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
        one_core_each()
        while not self._stopped.is_set() and (window := self._windows.get()) is not None:
            pages = torch.frombuffer(window, dtype=torch.uint8)[::_APART_BYTES]
            for step in pages.split(_STEP_BYTES // _APART_BYTES):  # type: ignore[no-untyped-call]
                if self._stopped.is_set():
                    return
                _touch(step)


def _touch(pages: torch.Tensor) -> None:
    """Reads them, without the interpreter's lock."""
    pages.sum()
