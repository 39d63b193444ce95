"""Where chunks go. The store's partials are sinks; verifying has one that writes nothing."""

from __future__ import annotations

from typing import Protocol

from diachunk.chunking.verify import Chunk, ChunkRef, VerifiedChunk, verify


class Sink(Protocol):
    """One file being assembled, chunk by chunk, at final offsets. Called from several lanes at once."""

    def judge(self, ref: ChunkRef, view: memoryview, *, local: bool) -> Chunk:
        """Whether these bytes are the chunk: `chunking.verify.verify`, wherever chunks are known by their digests.

        Args:
            local: they were read on this machine.

        Raises:
            BadChunk: they are not.
        """
        ...

    def holds(self, chunk: Chunk, offset: int) -> bool:
        """Whether these very bytes already stand at `offset` (so that they need not be written again)."""
        ...

    def write(self, chunk: Chunk, offset: int) -> None:
        """Puts the chunk's bytes at `offset`.

        Raises:
            StoreError: the disk refused.
        """
        ...

    def beat(self) -> None:
        """Says to other processes that wait for this file that somebody is at work on it."""
        ...

    def flush(self) -> None:
        """Makes what was written so far durable; may be called at any time, also while writes go on.

        Raises:
            StoreError: the disk refused. Sticky: the file can no longer become complete.
        """
        ...

    def abandon(self) -> None:
        """The session is over: what is not in place now will not come. Wakes those who wait for it."""
        ...

    def complete(self) -> None:
        """Every chunk is in place: makes the file durable and gives it its final name.

        Raises:
            StoreError: the disk refused, or the file vanished.
        """
        ...


class NullSink:
    """Verifies and keeps nothing."""

    def judge(self, ref: ChunkRef, view: memoryview, *, local: bool) -> VerifiedChunk:
        return verify(ref, view)

    def holds(self, chunk: Chunk, offset: int) -> bool:
        return True

    def write(self, chunk: Chunk, offset: int) -> None:
        raise AssertionError("verifying writes nothing")

    def beat(self) -> None:
        return

    def flush(self) -> None:
        return

    def abandon(self) -> None:
        return

    def complete(self) -> None:
        return
