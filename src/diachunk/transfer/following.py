"""Hashes a file while it is still being filled: what is written is read back at once, in order, from memory.

So a recipe is published while it is fetched, and a fetched file knows its SHA-256, with no pass afterwards.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from diachunk.chunking.hashing import Hashes, hash_bytes
from diachunk.errors import StoreError
from diachunk.limits import CHUNK_BYTES
from diachunk.store.partial import Abandoned, Partial

_BUFFERS = 3
_AT_ONCE = threading.BoundedSemaphore(4)
"""Each that is at work holds `_BUFFERS` chunks in memory."""


class Growing:
    """RandomAccess to a file that is being filled: waits for what it reads, and says so beforehand."""

    def __init__(self, partial: Partial, hasten: Callable[[int, int], None]) -> None:
        self._partial = partial
        self._hasten = hasten

    @property
    def size(self) -> int:
        return self._partial.chunks.total_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        self._hasten(offset, end)
        self._partial.wait_for(offset, end)
        pieces = []
        while offset < end and (piece := os.pread(self._partial.fd, end - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


class Follower:
    """Hashes one partial, on a thread of its own if it is large. `result` may be asked for once it is full."""

    def __init__(
        self, partial: Partial, name: str, hasten: Callable[[int, int], None], *, git: bool = False
    ) -> None:
        self._partial = partial
        self._name = name
        self._hasten = hasten
        self._git = git
        self._hashes: Hashes | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._partial.chunks.total_bytes > CHUNK_BYTES:
            self._thread = threading.Thread(target=self._run, name="diachunk-follow", daemon=True)
            self._thread.start()

    def result(self) -> Hashes:
        """The digests. Blocks until the last byte is hashed.

        Raises:
            StoreError: what was written could not be read back.
        """
        if self._thread is None:
            self._hash()
        else:
            self._thread.join()
        if self._hashes is None:
            raise StoreError(f"cannot read back {self._partial.path}: {self._error}") from self._error
        return self._hashes

    def stop(self) -> None:
        """Nothing more will come: ends the thread. Before the file is closed."""
        self._partial.abandon()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            # Not before there is something to do: a file whose turn comes late holds no memory.
            self._partial.wait_for(0, 1)
        except Abandoned as error:
            self._error = error
            return
        with _AT_ONCE:
            self._hash()

    def _hash(self) -> None:
        partial = self._partial
        try:
            self._hashes = hash_bytes(
                self._name,
                partial.fd,
                Growing(partial, self._hasten),
                wait=partial.wait_for,
                git=self._git,
                buffers=_BUFFERS,
            )
        except (Abandoned, OSError) as error:
            self._error = error
