"""Advisory locks on partials. They only save work: where they do nothing, two fetches write the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from diachunk.errors import StoreError
from diachunk.store.files import Files


class BusyLock:
    """The lock of the store's partial of a blob, held by a fetch that assembles that blob elsewhere (`--to`).

    Without it, fetches into directories of their own would each download what one of them could copy from
    another. Counted: files of equal content, each with a path of its own, share it.

    Attributes:
        locked: nobody else works on this blob; True too where that cannot be told.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.holders = 0
        self._path = path
        self._files = files
        self._fd = -1
        self.locked = True
        with contextlib.suppress(OSError, StoreError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.parent)
                os.chmod(path.parent, files.dir_mode)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o600)
            if os.fstat(self._fd).st_uid == os.geteuid():
                os.fchmod(self._fd, files.file_mode)
            self.locked = files.try_lock(self._fd)

    def beat(self) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._fd)

    def close(self) -> None:
        """Lets go of the lock; the partial goes too, unless somebody began to fill it."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError, StoreError):
            if self.locked and os.fstat(self._fd).st_size == 0:
                self._files.unlink(self._path)
        os.close(self._fd)
        self._fd = -1


def held_by_another(path: Path) -> tuple[int, int] | None:
    """What changes of a partial while another process that holds its lock gets on: blocks of disk, and the
    mtime in ns that its `beat` sets. None if nobody holds it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        status = os.fstat(fd)
        return status.st_blocks, status.st_mtime_ns
    except OSError:
        return None
    finally:
        os.close(fd)
    return None
