"""What the file system can tell of a sparse file: which of its bytes were ever written."""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.manifest.model import ChunkList


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of a sparse file that were ever written: SEEK_DATA and SEEK_HOLE of lseek(2).

    A file system that cannot tell says that all of it was.
    """
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                yield position, size
            return
        yield start, position


def chunks_in(ranges: Iterable[tuple[int, int]], chunks: ChunkList) -> Bitmap:
    """The chunks that lie wholly inside the ranges."""
    bits = Bitmap(len(chunks))
    offsets = chunks.offsets
    for start, end in ranges:
        index = bisect_left(offsets, start)
        while index < len(chunks) and offsets[index + 1] <= end:
            bits.add(index)
            index += 1
    return bits


def read_claims(path: Path, chunks: ChunkList) -> Bitmap:
    """What a partial that somebody else fills may hold; nothing if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Bitmap(len(chunks))
    try:
        return chunks_in(extents(fd, min(os.fstat(fd).st_size, chunks.total_bytes)), chunks)
    finally:
        os.close(fd)


def allocated(path: Path) -> int:
    """Bytes of disk that a partial takes already, at most its size; 0 if it is not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return min(status.st_blocks * 512, status.st_size)
