"""One file of a checkpoint, open for reading. What it gives was hashed here, or is proven by its stamp.

A stamp proves the *open* file: what lies under its name may be another by the time it is opened.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.chunking.verify import BadChunk, ChunkRef, VerifiedChunk, verify
from diachunk.errors import LoadError, StoreError, from_os_error
from diachunk.limits import MiB
from diachunk.schedule.work import BlobFacts
from diachunk.store.stamps import Stamp

_KEPT_BYTES = 16 * MiB
_NS = 1_000_000_000


class Damaged(Exception):
    """A chunk's bytes are not what the manifest says, or are missing."""

    def __init__(self, facts: BlobFacts, chunk: int) -> None:
        self.facts = facts
        self.chunk = chunk
        super().__init__(f"{facts.label}: chunk {chunk}")


class Blob:
    """See above. `read_at` makes it a `formats.base.RandomAccess`; threads may read chunks side by side.

    Attributes:
        trusted: its stamp proves the file that is open, so that nothing needs to be hashed.
        mappable: tensors may be pages of the file itself, verified there, instead of copies.
        verified: chunks that were hashed here and are right.
    """

    def __init__(
        self, facts: BlobFacts, path: Path, stamp: Stamp | None = None, *, mappable: bool = False
    ) -> None:
        self.facts = facts
        self.path = path
        self.size = facts.size
        self.verified = Bitmap(len(facts.chunks))
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._window: mmap.mmap | None = None
        self._hashes_headers = False
        self._closing = threading.Lock()
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise from_os_error(error, "read", path) from error
        self.opened_as = os.fstat(self.fd)
        if not stat.S_ISREG(self.opened_as.st_mode):
            self.close()
            raise LoadError(f"{path} is not a regular file")
        self.trusted = stamp is not None and self._proven_by(stamp)
        # Pages behind the end of a file that was cut off would end the process when they are touched.
        self.mappable = mappable and self.opened_as.st_size >= self.size > 0

    def _proven_by(self, stamp: Stamp) -> bool:
        status = self.opened_as
        # A stamp has no ctime of its own, but says when it was made: a file whose bytes, times or links changed
        # later has a ctime after that, also where its mtime was set back.
        # One from the future says nothing of the time until then.
        untouched = status.st_ctime_ns <= stamp.verified_at * _NS <= time.time_ns()
        return status.st_size == self.size and stamp.proves(status, self.facts.chunks.id) and untouched

    def changed(self) -> bool:
        """Whether the open file was written to, or cut, since it was opened. A new link to it is no change."""
        now = os.fstat(self.fd)
        before = self.opened_as
        return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or (
            now.st_ctime_ns != before.st_ctime_ns and now.st_nlink == before.st_nlink
        )

    def ref(self, chunk: int) -> ChunkRef:
        chunks = self.facts.chunks
        return ChunkRef(chunks.digest(chunk), chunks.sizes[chunk], self.facts.digest, chunks.offsets[chunk])

    def fill(self, offset: int, view: memoryview) -> bool:
        """Reads into `view`; False if the file ends before.

        Raises:
            StoreError: the disk refused.
        """
        while view:
            try:
                size = os.preadv(self.fd, [view], offset)
            except OSError as error:
                raise from_os_error(error, "read", self.path) from error
            if not size:
                return False
            offset, view = offset + size, view[size:]
        return True

    def read(self, chunk: int, view: memoryview) -> None:
        """Reads a chunk, unhashed.

        Raises:
            Damaged: the file ends before its end.
        """
        if not self.fill(self.facts.chunks.offsets[chunk], view):
            raise Damaged(self.facts, chunk)

    def check(self, chunk: int, view: memoryview) -> VerifiedChunk:
        """Hashes what was read into `view`.

        Raises:
            Damaged: it is not the chunk.
        """
        try:
            return verify(self.ref(chunk), view)
        except BadChunk as error:
            raise Damaged(self.facts, chunk) from error

    def window(self) -> mmap.mmap:
        """The whole file, mapped once; private, so that writing to it never reaches the file.

        Raises:
            StoreError: the system refused, or the file was cut short meanwhile.
        """
        if self._window is None:
            try:
                self._window = mmap.mmap(self.fd, self.size, access=mmap.ACCESS_COPY)
            except OSError as error:
                raise from_os_error(error, "map", self.path) from error
            except ValueError as error:
                raise StoreError(f"{self.path} was cut short while it was read") from error
        return self._window

    # --- headers -------------------------------------------------------------------------------------------

    @contextmanager
    def hashing_headers(self) -> Iterator[None]:
        """In this block `read_at` hashes also where the file is trusted."""
        self._hashes_headers = True
        try:
            yield
        finally:
            self._hashes_headers = False

    def read_at(self, offset: int, size: int) -> bytes:
        """`RandomAccess.read_at`: hashes every chunk that it touches, unless the file is trusted."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        if self.trusted and not self._hashes_headers:
            data = bytearray(end - offset)
            if not self.fill(offset, memoryview(data)):
                raise Damaged(self.facts, _chunk_at(self.facts, offset))
            return bytes(data)
        pieces = []
        chunk = _chunk_at(self.facts, offset)
        while offset < end:
            data_at = self.facts.chunks.offsets[chunk]
            piece = self._chunk(chunk)[offset - data_at : end - data_at]
            pieces.append(piece)
            offset += len(piece)
            chunk += 1
        return b"".join(pieces)

    def _chunk(self, chunk: int) -> bytes:
        kept = self._kept.get(chunk)
        if kept is not None:
            self._kept.move_to_end(chunk)
            return kept
        buffer = bytearray(self.facts.chunks.sizes[chunk])
        self.read(chunk, memoryview(buffer))
        self.check(chunk, memoryview(buffer))
        self.verified.add(chunk)
        data = self._kept[chunk] = bytes(buffer)
        self._kept_bytes += len(data)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return data

    def forget(self) -> None:
        """Frees what was kept of headers."""
        self._kept.clear()
        self._kept_bytes = 0

    def close(self) -> None:
        """Safe on several threads: closed twice, the number may be another file's by then."""
        with self._closing:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # A stream that nobody ever asked for a tensor has no frame whose end would close this.
        if getattr(self, "fd", -1) >= 0:
            self.close()


def _chunk_at(facts: BlobFacts, offset: int) -> int:
    return bisect_right(facts.chunks.offsets, offset) - 1
