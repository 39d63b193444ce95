"""One pass over a file: chunk digests, the file's BLAKE3 and SHA-256, on all cores, in bounded memory."""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from diachunk.chunking.cuts import cut_sizes, rule_for
from diachunk.chunking.hashes import Hashes
from diachunk.digest import Digest, digest_of, git_hasher, hasher
from diachunk.errors import IntegrityError, from_os_error
from diachunk.formats.base import FileAccess, RandomAccess
from diachunk.formats.registry import find_tensors
from diachunk.limits import CHUNK_BYTES, MiB

_BUFFERS = 6
_NAMES_STEP_BYTES = 1 * MiB


@dataclass(frozen=True, slots=True)
class HashedFile(Hashes):
    """A file that stood still meanwhile: `status` is its identity, the same before and after the pass."""

    path: Path
    status: os.stat_result


def hash_files(
    files: Sequence[Path], *, read: Callable[[Path, int], None] = lambda path, size_bytes: None
) -> list[HashedFile]:
    """Hashes files, large ones one at a time on all cores, small ones side by side.

    Args:
        read: told the file and the bytes read since the last call; may be called from any thread.

    Raises:
        IntegrityError: a file changed while it was read.
        StoreError: a file cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count() or 2, "diachunk-hash") as pool:
        small = {path: pool.submit(hash_one, path, read) for path in files if _is_small(path)}
        large = {path: hash_one(path, read) for path in files if path not in small}
        return [large[path] if path in large else small[path].result() for path in files]


def _is_small(path: Path) -> bool:
    try:
        return path.stat().st_size <= CHUNK_BYTES
    except OSError as error:
        raise from_os_error(error, "read", path) from error


def hash_one(
    path: Path, read: Callable[[Path, int], None] = lambda path, size_bytes: None, *, git: bool = False
) -> HashedFile:
    """Hashes one file; with `git`, by git's way as well. See hash_files."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            found = hash_bytes(path.name, fd, FileAccess(fd), read=lambda size: read(path, size), git=git)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        now = path.stat()
    except OSError as error:
        raise from_os_error(error, "read", path) from error
    if found is None or any(_identity(before) != _identity(each) for each in (after, now)):
        raise IntegrityError(
            f"{path} changed while it was read", hint="publish it again once nothing writes it"
        )
    return HashedFile(
        found.size,
        found.blake3,
        found.sha256,
        found.git,
        found.sizes,
        found.digests,
        found.rule,
        path,
        after,
    )


def hash_bytes(
    name: str,
    fd: int,
    access: RandomAccess,
    *,
    wait: Callable[[int, int], None] = lambda start, end: None,
    read: Callable[[int], None] = lambda size_bytes: None,
    git: bool = False,
    buffers: int = _BUFFERS,
) -> Hashes | None:
    """One pass over an open file, which may still be growing.

    Args:
        name: the file's name: its suffix helps to find its format.
        access: how its header is read; of a growing file, it waits for what it reads.
        wait: returns once the bytes [start, end) are there.
        read: told the bytes read since the last call.
        git: whether to compute git's id, too.
        buffers: how many chunks are in memory at once.

    Returns:
        None if the file ended before its size.

    Raises:
        OSError: it cannot be read. Whatever `access` and `wait` raise.
    """
    total = access.size
    layout = find_tensors(name, access)
    sizes = cut_sizes(total, layout.spans)
    offset = 0
    with _Pass(sizes, total if git else None, buffers) as running:
        for size in sizes:
            wait(offset, offset + size)
            if not running.feed(fd, size):
                return None
            offset += size
            read(size)
    return Hashes(
        total,
        running.whole.digest(),
        running.sha256.hexdigest(),
        running.git.hexdigest() if running.git else "",
        sizes,
        b"".join(running.digests),
        rule_for(layout),
    )


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def hash_names(
    fd: int, size_bytes: int, wait: Callable[[int, int], None], *, git: bool = False
) -> tuple[str, str]:
    """SHA-256 and, if asked for, git's id of an open file that may still be growing; "" for what was not asked for.

    Args:
        wait: returns once the bytes [start, end) are there.

    Raises:
        OSError: it cannot be read, or ends early. Whatever `wait` raises.
    """
    hashers = [hashlib.sha256(), *([git_hasher(size_bytes)] if git else [])]
    buffer = memoryview(bytearray(min(_NAMES_STEP_BYTES, size_bytes) or 1))
    offset = 0
    while offset < size_bytes:
        end = min(offset + len(buffer), size_bytes)
        wait(offset, end)
        read = os.preadv(fd, [buffer[: end - offset]], offset)
        if not read:
            raise OSError(errno.EIO, "ends early")
        for each in hashers:
            each.update(buffer[:read])
        offset += read
    return hashers[0].hexdigest(), hashers[1].hexdigest() if git else ""


class _Pass:
    """The hashes over one stream of chunks: SHA-256 (and git's id) and the whole file's BLAKE3 in order, each on its
    own thread (they release the GIL), chunk digests on the reading thread. A small ring of buffers bounds memory.

    A file of one chunk is hashed inline: threads would cost more than they save.
    """

    def __init__(self, sizes: Sequence[int], git_bytes: int | None, buffers: int) -> None:
        self.whole = hasher()
        self.sha256 = hashlib.sha256()
        self.git = git_hasher(git_bytes) if git_bytes is not None else None
        self.digests: list[Digest] = []
        self.fed = 0
        self._offset = 0
        self._inline = len(sizes) <= 1
        count = 1 if self._inline else min(buffers, len(sizes))
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(memoryview(bytearray(max(sizes, default=1))))
        self._ordered = [_Ordered(self.whole.update), _Ordered(self.sha256.update)]
        if self.git:
            self._ordered.append(_Ordered(self.git.update))

    def feed(self, fd: int, size: int) -> bool:
        """Reads and hashes the next chunk; False if the file ends before."""
        buffer = self._free.get()
        view = buffer[:size]
        done = 0
        while done < size and (count := os.preadv(fd, [view[done:]], self._offset + done)):
            done += count
        if done < size:
            self._free.put(buffer)
            return False
        self._offset += size
        self.fed += 1
        if self._inline:
            for ordered in self._ordered:
                ordered.update(view)
            self.digests.append(digest_of(view))
            self._free.put(buffer)
            return True
        pending = _Pending(1 + len(self._ordered), lambda: self._free.put(buffer))
        for ordered in self._ordered:
            ordered.put(view, pending.release)
        self.digests.append(digest_of(view))
        pending.release()
        return True

    def __enter__(self) -> _Pass:
        if not self._inline:
            for ordered in self._ordered:
                ordered.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for ordered in self._ordered:
            ordered.finish()


class _Pending:
    """Calls back once it was released by everybody who holds it."""

    def __init__(self, holders: int, last: Callable[[], None]) -> None:
        self._left = holders
        self._last = last
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            self._left -= 1
            left = self._left
        if not left:
            self._last()


class _Ordered:
    """Feeds one running hash, in order, on a thread of its own."""

    def __init__(self, update: Callable[[memoryview], object]) -> None:
        self.update = update
        self._jobs: queue.SimpleQueue[tuple[memoryview, Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="diachunk-hash", daemon=True)
        self._thread.start()

    def put(self, view: memoryview, done: Callable[[], None]) -> None:
        self._jobs.put((view, done))

    def finish(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.update(job[0])
            job[1]()
