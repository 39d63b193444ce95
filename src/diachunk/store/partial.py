"""A file being assembled: sparse, every chunk at its final offset. Its bytes on disk are claims.

Within its life chunks go absent -> present, never back, so two processes that fill one partial of the same
chunk list write the same bytes and commute; the lock only saves the second one's work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.chunking.verify import Chunk, ChunkRef, MeasuredChunk, VerifiedChunk, verify
from diachunk.errors import StoreError, from_os_error
from diachunk.manifest.model import ChunkList
from diachunk.store.extents import chunks_in, extents
from diachunk.store.files import Files, read_hint
from diachunk.store.locks import BusyLock
from diachunk.store.pieces import PieceSize


class Vanished(StoreError):
    """The partial was removed or replaced by another process while it was filled. Start over."""

    retryable = True


class Abandoned(OSError):
    """Bytes that somebody waits for will not come. Caught where the waiting was begun.

    An OSError, so that readers of formats let it pass: a file that does not come is no malformed one.
    """


class Partial:
    """An open partial file; a `transfer.sink.Sink`.

    `finish` is called once, when everything is flushed: it gives the file its final name. With `dir_fd` the
    file is reached through that open directory alone, so that no link on the way can lead elsewhere; the
    partial closes it. `busy` is held for as long as it is open, too.

    Attributes:
        locked: nobody else works on it; True too where locks do nothing.
        names: what says, once the file is full, its SHA-256 and git's id as computed meanwhile; None if nobody
            asked for them.
    """

    _takes: type[VerifiedChunk] | type[MeasuredChunk] = VerifiedChunk

    def __init__(
        self,
        path: Path,
        chunks: ChunkList,
        files: Files,
        finish: Callable[[Partial], None] | None = None,
        dir_fd: int | None = None,
        busy: BusyLock | None = None,
    ) -> None:
        self.path = path
        self.chunks = chunks
        self._files = files
        self._busy = busy
        if busy:
            busy.holders += 1
        self._finish = finish
        self.names: Callable[[], tuple[str, str]] | None = None
        self._name = path if dir_fd is None else Path(path.name)
        self.dir_fd = dir_fd
        self._flush_failed: OSError | None = None
        self._completed = False
        self._owned = False
        self._present = Bitmap(len(chunks))
        self._arrived = threading.Condition()
        self._abandoned = False
        self._told: Callable[[int], None] | None = None
        self._write_lock = threading.Lock()
        self._piece = PieceSize()
        self._have_path = path.with_name(f"{path.name}.have")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self.fd = os.open(self._name, flags, 0o600, dir_fd=dir_fd)
        except OSError as error:
            self.fd = -1
            self.close()
            if error.errno == errno.ELOOP:
                raise StoreError(f"{path} is a link; refusing to write through it") from error
            raise from_os_error(error, "open", path) from error
        try:
            self._prepare()
        except OSError as error:
            self.close()
            raise from_os_error(error, "prepare", path) from error
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{self.path} is not a regular file")
        self._owned = self._files.try_lock(self.fd)
        self.locked = self._owned and (self._busy is None or self._busy.locked)
        # Only a new file: one that is there may have become a read-only blob since it was opened.
        if not status.st_size and status.st_uid == os.geteuid():
            os.fchmod(self.fd, self._files.file_mode)
        if status.st_size != self.chunks.total_bytes:
            os.ftruncate(self.fd, self.chunks.total_bytes)
        self._shows_holes = self._probe_holes(status)

    def _probe_holes(self, before: os.stat_result) -> bool:
        """Whether SEEK_DATA tells written from unwritten: a file with fewer blocks than bytes has holes."""
        if before.st_blocks * 512 >= self.chunks.total_bytes:
            return True
        return list(extents(self.fd, self.chunks.total_bytes)) != [(0, self.chunks.total_bytes)]

    # --- what may be there ---------------------------------------------------------------------------------

    def claimed(self) -> Bitmap:
        """Chunks that may be present: those in allocated extents; where those tell nothing, the hint's."""
        # Beside a file in a directory of the user's, a hint would have to be read by path: none is kept there.
        if not self._shows_holes and self.dir_fd is None and (hint := self._read_hint()) is not None:
            return hint
        return chunks_in(extents(self.fd, self.chunks.total_bytes), self.chunks)

    def _read_hint(self) -> Bitmap | None:
        data = read_hint(self._have_path, 32 + len(self.chunks) // 8 + 1)
        if not data or data[:32] != self.chunks.id:
            return None
        try:
            return Bitmap.from_bytes(data[32:], len(self.chunks))
        except ValueError:
            return None

    def _write_hint(self) -> None:
        """What is present, for a resume on a file system without SEEK_DATA. Never trusted."""
        with self._arrived:
            packed = self._present.to_bytes()
        self._files.replace_text(self._have_path, self.chunks.id + packed)

    # --- the sink ------------------------------------------------------------------------------------------

    def judge(self, ref: ChunkRef, view: memoryview, *, local: bool) -> Chunk:
        return verify(ref, view)

    def holds(self, chunk: Chunk, offset: int) -> bool:
        try:
            data = os.pread(self.fd, chunk.ref.size, offset)
        except OSError:
            return False
        if data != chunk.data:
            return False
        self._note(offset)
        return True

    def write(self, chunk: Chunk, offset: int) -> None:
        if not isinstance(chunk, self._takes):
            raise TypeError(f"{type(chunk).__name__} for {self.path}")
        try:
            # Writers of one inode exclude each other in the kernel anyway, but spin while they wait there;
            # waiting here instead leaves the core to receiving and hashing (docs/benchmarks.md).
            with self._write_lock:
                if self.fd < 0:
                    raise OSError(errno.EBADF, "is closed")
                started_at = time.perf_counter()
                self._files.pwrite(self.fd, chunk.data, offset, self._piece.bytes)
                self._piece.took(chunk.ref.size, time.perf_counter() - started_at)
        except OSError as error:
            raise from_os_error(error, "write", self.path) from error
        self._note(offset)

    def _index(self, offset: int) -> int:
        return bisect_left(self.chunks.offsets, offset)

    def _note(self, offset: int) -> None:
        index = self._index(offset)
        with self._arrived:
            self._present.add(index)
            self._arrived.notify_all()
        told = self._told
        if told is not None:
            told(index)

    # --- following it while it grows -----------------------------------------------------------------------

    def wait_for(self, start: int, end: int) -> None:
        """Blocks until the bytes [start, end) are in place, written or found right by this process.

        Raises:
            Abandoned: they will not come: the file was closed first.
        """
        first = bisect_right(self.chunks.offsets, start) - 1
        last = bisect_left(self.chunks.offsets, end)
        with self._arrived:
            for index in range(first, last):
                while index not in self._present:
                    if self._abandoned:
                        raise Abandoned(self.path)
                    self._arrived.wait()

    def follow(self, told: Callable[[int], None] | None) -> None:
        """Tells of each chunk that gets in place, on the thread that put it there; `present` has the earlier ones."""
        self._told = told

    def present(self) -> Bitmap:
        """A copy: the chunks in place, written or found right by this process."""
        with self._arrived:
            return Bitmap.from_bytes(self._present.to_bytes(), self._present.length)

    def abandon(self) -> None:
        """Nothing more will come: wakes those who wait for it."""
        with self._arrived:
            self._abandoned = True
            self._arrived.notify_all()

    def beat(self) -> None:
        """Sets the file's mtime, which nothing else depends on until it is complete: `held_by_another` shows
        it to those who wait. A file that is re-hashed grows by nothing, so its size would tell them less.
        """
        with self._write_lock, contextlib.suppress(OSError):
            if self.fd >= 0 and not self._completed:
                os.utime(self.fd)
        if self._busy:
            self._busy.beat()

    def flush(self) -> None:
        if self._flush_failed is None:
            try:
                self._files.flush_data(self.fd)
            except OSError as error:
                # Sticky (fsync(2), "Errors"): after a failed flush the kernel may have dropped dirty pages,
                # so a later success proves nothing. The next run verifies the partial again.
                self._flush_failed = error
        if self._flush_failed is not None:
            raise from_os_error(self._flush_failed, "flush", self.path) from self._flush_failed
        if not self._shows_holes and self.dir_fd is None:
            self._write_hint()

    def complete(self) -> None:
        self.flush()
        try:
            named = os.stat(self._name, dir_fd=self.dir_fd, follow_symlinks=False)
            if (named.st_dev, named.st_ino) != (os.fstat(self.fd).st_dev, os.fstat(self.fd).st_ino):
                raise Vanished(f"{self.path} was replaced by another process", hint="run the same again")
            with self._write_lock:
                self._completed = True  # Its stamp is taken next: from here on nothing may touch it.
            if self._finish:
                self._finish(self)
            self._files.unlink(self._have_path)
        except FileNotFoundError as error:
            # Where locks do nothing, two may come here at once: one rename finds the name, the other does not.
            raise Vanished(
                f"{self.path} was removed by another process", hint="run the same again"
            ) from error
        except OSError as error:
            raise from_os_error(error, "complete", self.path) from error

    def discard(self) -> None:
        """Removes a partial that turned out to be needless, if nobody else holds it, and closes it."""
        if self._owned:
            with contextlib.suppress(StoreError):
                self._files.unlink(self._name, dir_fd=self.dir_fd)
            self._completed = True
        self.close()

    def close(self) -> None:
        """Lets go of the file and its lock; one that nothing was written to goes. Waits for a write under way:
        its descriptor could be reused.
        """
        self.abandon()
        with self._write_lock:
            if self.fd >= 0:
                self._remove_if_empty()
                os.close(self.fd)
                self.fd = -1
        if self.dir_fd is not None:
            os.close(self.dir_fd)
            self.dir_fd = None
        if self._busy:
            busy, self._busy = self._busy, None
            busy.holders -= 1
            if not busy.holders:
                busy.close()

    def _remove_if_empty(self) -> None:
        """Opened, and then a neighbour was found to be at work on it, or to have completed it."""
        if not self._owned or self._completed:
            return
        with contextlib.suppress(OSError, StoreError):
            status = os.fstat(self.fd)
            named = os.stat(self._name, dir_fd=self.dir_fd, follow_symlinks=False)
            if not status.st_blocks and (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino):
                self._files.unlink(self._name, dir_fd=self.dir_fd)
