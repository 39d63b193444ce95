"""Chunks from files that are already on this machine: the partial being filled, donors, adopted files."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterable
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.limits import MiB
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import Run
from diachunk.sources.base import Flow, SourceFault, Stream

LOCAL_SLICE_BYTES = 1 * MiB
"""Disks need no small slices to show progress: the one exception to `Flow.slice_bytes`."""


def open_regular(path: Path) -> int:
    """Opens a regular file for reading; never blocks on a FIFO or device.

    Raises:
        OSError: it cannot be opened.
        SourceFault: it is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceFault(Fault.MISSING, f"{path} is not a regular file")
    return fd


def read_exactly(fd: int, offset: int, view: memoryview, flow: Flow, label: str) -> None:
    """Fills `view` from `offset`, telling the flow.

    Raises:
        SourceFault: the file ends before, or the disk fails.
    """
    while view:
        try:
            size = os.preadv(fd, [view[: max(flow.slice_bytes(), LOCAL_SLICE_BYTES)]], offset)
        except OSError as error:
            raise SourceFault(Fault.MISSING, f"{label}: {error.strerror}") from error
        if not size:
            raise SourceFault(Fault.MISSING, f"{label}: ends early")
        flow.advance(size)
        offset, view = offset + size, view[size:]


class LocalFiles:
    """A source over local files: says for each item in which file and where it should lie.

    The places are claims (another manifest's word, a file's allocated extents); the bytes are verified like
    any others.

    Attributes:
        proven: what lies where it was verified once.
        errors: files that the disk or their permissions kept from being read, and why.
    """

    tier = Tier.LOCAL

    def __init__(self, label: str, items: int) -> None:
        self.label = label
        self.has = Bitmap(items)
        self.proven = Bitmap(items)
        self.errors: dict[Path, str] = {}
        self._file_of = array("I", bytes(4 * items))
        self._offset_of = array("Q", bytes(8 * items))
        self._paths: list[Path] = []
        self._numbers: dict[Path, int] = {}

    def claim(self, item: int, path: Path, offset: int, *, proven: bool = False) -> None:
        """Says that `item` may lie in `path` at `offset`. The first word stands, but a proven place replaces one that
        is not.
        """
        if item not in self.has or (proven and item not in self.proven):
            number = self._numbers.get(path)
            if number is None:
                number = self._numbers[path] = len(self._paths)
                self._paths.append(path)
            self._file_of[item], self._offset_of[item] = number, offset
            self.has.add(item)
            if proven:
                self.proven.add(item)

    def place(self, item: int) -> tuple[Path, int]:
        """Where an item that it has may lie: file and offset."""
        return self._paths[self._file_of[item]], self._offset_of[item]

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        # Opened for each request: a checkpoint may have more files than a process may hold open.
        opened, fd, position = -1, -1, 0
        try:
            for item, ref in zip(run.items, run.refs, strict=True):
                skip = max(0, start - position)
                if skip < ref.size:
                    if self._file_of[item] != opened:
                        if fd >= 0:
                            os.close(fd)
                        fd, opened = -1, self._file_of[item]
                        fd = self._open(opened)
                    piece = view[position + skip - start : position - start + ref.size]
                    self._read(fd, item, skip, piece, flow)
                position += ref.size
        finally:
            if fd >= 0:
                os.close(fd)

    def stream(self, run: Run, flow: Flow) -> Stream:
        raise SourceFault(Fault.FAILED, "local files are read by range")

    def _read(self, fd: int, item: int, skip: int, view: memoryview, flow: Flow) -> None:
        try:
            read_exactly(fd, self._offset_of[item] + skip, view, flow, self.label)
        except SourceFault as fault:
            if isinstance(fault.__cause__, OSError):
                self._note(self._paths[self._file_of[item]], fault.__cause__)
            raise

    def _note(self, path: Path, error: OSError) -> None:
        self.errors.setdefault(path, error.strerror or type(error).__name__)

    def _open(self, number: int) -> int:
        path = self._paths[number]
        try:
            return open_regular(path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._note(path, error)
            raise SourceFault(Fault.MISSING, f"{path}: {error.strerror}") from error

    def files(self) -> Iterable[Path]:
        return tuple(self._paths)

    def close(self) -> None:
        return
