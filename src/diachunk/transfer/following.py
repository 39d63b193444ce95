"""Hashes a file while it is still being filled: what is written is read back at once, in order, from memory.

So a recipe is published while it is fetched, and a fetched file knows its SHA-256, with no pass afterwards.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import hash_bytes, hash_names
from diachunk.errors import StoreError
from diachunk.limits import CHUNK_BYTES
from diachunk.store.partial import Abandoned, Partial

T = TypeVar("T")
_BUFFERS = 3
_AT_ONCE = 4
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


def turns() -> threading.Semaphore:
    """What the followers of one session share: so many are at work at once."""
    return threading.BoundedSemaphore(_AT_ONCE)


class Follower(Generic[T]):
    """Does one job over a partial while that grows, on a thread of its own if it is large. `result` may be asked for
    once it is full.
    """

    def __init__(self, partial: Partial, turns: threading.Semaphore, job: Callable[[], T]) -> None:
        self._partial = partial
        self._turns = turns
        self._job = job
        self._done: list[T] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._partial.chunks.total_bytes > CHUNK_BYTES:
            self._thread = threading.Thread(target=self._run, name="diachunk-follow", daemon=True)
            self._thread.start()

    def result(self) -> T:
        """What the job found. Blocks until it has seen the last byte.

        Raises:
            StoreError: what was written could not be read back.
        """
        if self._thread is None:
            self._work()
        else:
            self._thread.join()
        if not self._done:
            raise StoreError(f"cannot read back {self._partial.path}: {self._error}") from self._error
        return self._done[0]

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
        with self._turns:
            self._work()

    def _work(self) -> None:
        try:
            self._done.append(self._job())
        except (Abandoned, OSError) as error:
            self._error = error


def publishing(
    partial: Partial, turns: threading.Semaphore, name: str, hasten: Callable[[int, int], None], *, git: bool
) -> Follower[Hashes | None]:
    """Follows a file of unknown chunks: all its digests, as publishing finds them."""

    def job() -> Hashes | None:
        return hash_bytes(
            name,
            partial.fd,
            Growing(partial, hasten),
            wait=partial.wait_for,
            git=git,
            buffers=_BUFFERS,
        )

    return Follower(partial, turns, job)


def naming(partial: Partial, turns: threading.Semaphore, *, git: bool) -> Follower[tuple[str, str]]:
    """Follows a file of known chunks: its SHA-256 and git's id, under which other programs keep it."""

    def job() -> tuple[str, str]:
        return hash_names(partial.fd, partial.chunks.total_bytes, partial.wait_for, git=git)

    return Follower(partial, turns, job)
