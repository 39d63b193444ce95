"""Hashes what this process did not write itself, before it is offered: partials that others fill, and claims.

Blocking: runs on a thread of its own. New chunks only, and again only what changed since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.chunking.verify import BadChunk, ChunkRef, verify
from diachunk.errors import DiachunkError
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest.model import ChunkList
from diachunk.node.stock.disk import Found, identity_of
from diachunk.node.stock.holdings import FileHere, Identity, Key
from diachunk.store.blobs import Presence
from diachunk.store.extents import read_claims
from diachunk.store.stamps import Stamp

_WAIT_MAX_LOOKS = 32
"""A file whose new chunks were all wrong is looked at half as often each time, down to this."""

Tell = Callable[[Key, Identity, int], None]


@dataclass(slots=True)
class _Seen:
    """What was found out about one file so far."""

    inode: Identity
    right: Bitmap
    mark: Identity = ()
    skip: int = 0
    pause: int = 1


class Growing:
    """Files that are not proven, and which of their chunks are right. `tell` hears of each: file, inode, index."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._seen: dict[Key, _Seen] = {}
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self.verified_bytes = 0
        self._stop = False

    def stop(self) -> None:
        """Ends `look` after the chunk in hand; may be called from any thread."""
        self._stop = True

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)

    def look_all(self, files: Iterable[tuple[FileHere, Found]]) -> None:
        """As `look`, one after the other."""
        for file, found in files:
            self.look(file, found)

    def look(self, file: FileHere, found: Found) -> None:
        """Hashes what is new in a file that another process fills, or that only claims to be complete."""
        for path in found.paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                with suppress(OSError):
                    self._look_at(file, found, fd, path)
            finally:
                os.close(fd)
            return
        self.forget(file.key)

    def _look_at(self, file: FileHere, found: Found, fd: int, path: Path) -> None:
        status = os.fstat(fd)
        identity = identity_of(status)
        if identity[:2] != found.identity[:2] or status.st_size != file.size:
            return
        seen = self._seen.get(file.key)
        if seen is None or seen.inode != identity[:2]:
            seen = self._seen[file.key] = _Seen(identity[:2], Bitmap(len(file.chunks)))
        if seen.mark == identity:
            return
        if seen.skip > 0:
            seen.skip -= 1
            return
        before, asked = len(seen.right), 0
        for index in read_claims(path, file.chunks):
            if self._stop:
                return
            if index in seen.right:
                continue
            # What a session of this process left there need not be hashed again.
            if file.identity[:2] == identity[:2] and file.has(index):
                seen.right.add(index)
            else:
                asked += 1
                self._hash(file.chunks, index, fd, seen, file)
        # Marked as it was before it was read: what came meanwhile is looked at next time.
        seen.mark = identity
        if asked and len(seen.right) == before:
            seen.pause = min(_WAIT_MAX_LOOKS, seen.pause * 2)
            seen.skip = seen.pause
        else:
            seen.pause = 1
        if len(seen.right) == len(file.chunks):
            self._prove(file, found, path, status)

    def _hash(self, chunks: ChunkList, index: int, fd: int, seen: _Seen, file: FileHere) -> None:
        size, offset = chunks.sizes[index], chunks.offsets[index]
        view, done = self._buffer[:size], 0
        while done < size and (more := os.preadv(fd, [view[done:]], offset + done)):
            done += more
        try:
            verify(ChunkRef(chunks.digest(index), size, file.digest, offset), view[:done])
        except BadChunk:
            return
        self.verified_bytes += size
        seen.right.add(index)
        self._tell(file.key, seen.inode, index)

    def _prove(self, file: FileHere, found: Found, path: Path, before: os.stat_result) -> None:
        """A complete file that only claimed to be right: stamped, so that nobody reads it again."""
        if found.store is None or path.name.endswith(".partial"):
            return
        with suppress(DiachunkError, OSError):
            holding = found.store.blobs.find(file.digest, file.size, file.chunks)
            if holding.presence is Presence.CLAIMED and holding.path == path and _same(path, before):
                found.store.blobs.prove(file.digest, holding, file.key[1], Stamp.of(before))


def _same(path: Path, before: os.stat_result) -> bool:
    return identity_of(os.stat(path)) == identity_of(before)
