"""Pages of files that will be mapped, touched while one core reads headers and others are idle.

To touch a gigabyte of mapped pages for the first time takes 70 ms of CPU, as long as to read the header of a PyTorch
file; side by side that is half. Nothing is changed by it, and nothing waits for it.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque

import torch

from diachunk.errors import StoreError
from diachunk.limits import MiB
from diachunk.loader.blob import Blob
from diachunk.loader.host import one_core_each

_APART_BYTES = 64 * 1024
"""The kernel brings that many around a page that is touched, if they are in its cache (fault_around_bytes)."""
_FIRST_BYTES, _STEP_BYTES = 16 * MiB, 128 * MiB
"""Between two steps this thread waits for the interpreter's lock, up to five milliseconds: as long as 64 MiB take."""
_WARM_BPS = 2e9
"""What comes more slowly comes from a disk: whoever wants it reads it anyway, and no step may take long."""


class Ahead:
    """At most one thread for one load. `follow` and `stop` are called on the load's own.

    Not by madvise(MADV_POPULATE_READ): meanwhile no other thread of the process gets memory from the system, and the
    one that reads headers was slower by what this one gained. And no daemon: the interpreter, ending, would throw it
    out of torch, which aborts the process.
    """

    def __init__(self) -> None:
        self._windows: deque[mmap.mmap] = deque()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, blob: Blob) -> None:
        """This file is going to be mapped as a whole, if it can be."""
        if not blob.mappable or (os.cpu_count() or 1) < 2:
            return
        try:
            self._windows.append(blob.window())
        except StoreError:
            return  # whoever needs it says so
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="diachunk-ahead")
            try:
                self._thread.start()
            except RuntimeError:  # no memory for one more stack, or a limit on threads
                self._thread = None

    def stop(self) -> None:
        """No more of it. What is under way, one step, ends by itself."""
        self._stopped.set()
        self._windows.clear()

    def _run(self) -> None:
        one_core_each()
        while True:
            try:
                window = self._windows.popleft()
            except IndexError:
                return
            pages = torch.frombuffer(window, dtype=torch.uint8)
            at, size = 0, _FIRST_BYTES
            while at < len(window):
                step = pages[at : at + size : _APART_BYTES]
                started_at = time.perf_counter()
                _touch(step)
                if self._stopped.is_set() or time.perf_counter() - started_at > size / _WARM_BPS:
                    return
                at, size = at + size, _STEP_BYTES


def _touch(pages: torch.Tensor) -> None:
    """Reads them, without the interpreter's lock."""
    pages.sum()
