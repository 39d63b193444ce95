"""The file operations everything durable goes through: one object, so that tests can stop or drop them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
from pathlib import Path

from diachunk.errors import StoreError, from_os_error, os_errors
from diachunk.limits import CHUNK_BYTES

_FICLONE = 0x40049409
"""ioctl(2) FICLONE of Linux: share the extents of another file (Btrfs, XFS, bcachefs)."""
_F_FULLFSYNC = 51
"""fcntl(2) of macOS: fsync there leaves data in the drive's cache."""


class Files:
    """Writes, flushes and renames. Stateless but for the modes that new files and directories take.

    Attributes:
        file_mode, dir_mode: taken from the store's root directory, never from mkstemp or the umask, so that a
            setgid site store stays usable by its whole group.
    """

    def __init__(self, root_mode: int = 0o755) -> None:
        self._durable: set[Path] = set()
        self.dir_mode = root_mode & 0o7777
        self.file_mode = root_mode & 0o666

    def make_dirs(self, path: Path, below: Path) -> None:
        """Makes `path` and what is missing between it and `below`, durably: a file in a directory whose own
        name a power cut takes back is lost with it. One that is there may have been made just before a crash,
        or by a neighbour that has not flushed it yet, so each is flushed once by this object.
        """
        with os_errors("create", path):
            unsure = []
            while path != below and not (path in self._durable and path.is_dir()):
                unsure.append(path)
                path = path.parent
            for each in reversed(unsure):
                if not each.is_dir():
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(each)
                        os.chmod(each, self.dir_mode)
                self.flush_dir(each.parent)
                self._durable.add(each)

    def make_root(self, path: Path) -> None:
        """Makes a directory and its parents, durably; their modes are the system's.

        Raises:
            OSError: it cannot be made, or not be entered.
        """
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        for each in path.parents:
            self.settle(each)

    def made_durable(self, path: Path) -> None:
        """Says that a directory's own name is flushed, by whatever else flushed it."""
        self._durable.add(path)

    def pwrite(self, fd: int, data: memoryview, offset: int, piece_bytes: int = CHUNK_BYTES) -> None:
        """Writes all of `data`, at most `piece_bytes` a system call (see store.pieces)."""
        while data:
            size = os.pwrite(fd, data[:piece_bytes], offset)
            data, offset = data[size:], offset + size

    def flush_data(self, fd: int) -> None:
        """fdatasync, or what does its work here."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, _F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def flush_dir(self, directory: Path | int) -> None:
        """Makes the names in a directory (or open one) durable. File systems that cannot (some FUSE) are
        left alone.
        """
        if isinstance(directory, int):
            self._flush_open_dir(directory)
            return
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flush_open_dir(fd)
        finally:
            os.close(fd)

    def settle(self, directory: Path) -> None:
        """Flushes a directory in which something was found rather than put: it may have been put there just
        before a crash, or by a neighbour a moment ago. Who may only read here leaves that to the owner.
        """
        with contextlib.suppress(OSError):
            self.flush_dir(directory)

    def _flush_open_dir(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise

    def rename(self, source: Path, target: Path, *, dir_fd: int | None = None) -> None:
        os.rename(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def unlink(self, path: Path, *, dir_fd: int | None = None) -> bool:
        """Removes a name; False if it was not there. A directory in a file's place is moved aside.

        Raises:
            StoreError: it may not be removed.
        """
        try:
            os.unlink(path, dir_fd=dir_fd)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            with os_errors("move", path):
                self.move_aside(path)
        except OSError as error:
            raise from_os_error(error, "remove", path) from error
        return True

    def replace_text(self, path: Path, data: bytes, *, durable: bool = False) -> None:
        """Writes a small file so that readers see the old one or the new one, never half of it."""
        temporary = path.with_name(_temporary_name())
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, self.file_mode)
                self.pwrite(fd, memoryview(data), 0)
                if durable and data:
                    self.flush_data(fd)
            finally:
                os.close(fd)
            self._put_in_place(temporary, path)
            if durable:
                self.flush_dir(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise from_os_error(error, "write", path) from error

    def replace_link(self, path: Path, target: str) -> bool:
        """Makes `path` a symbolic link to `target`, in one step also when something else was there.

        Returns:
            Whether it was none before. It is durable once its directory is flushed.
        """
        temporary = path.with_name(_temporary_name())
        try:
            if path.is_symlink() and os.readlink(path) == target:
                return False
            os.symlink(target, temporary)
            self._put_in_place(temporary, path)
            return True
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise from_os_error(error, "link", path) from error

    def _put_in_place(self, temporary: Path, path: Path) -> None:
        """Renames, over anything: a directory where a file belongs is moved aside."""
        try:
            self.rename(temporary, path)
        except IsADirectoryError:
            self.move_aside(path)
            self.rename(temporary, path)

    def move_aside(self, path: Path) -> Path:
        """Gives what is in the way another name beside it; `gc` removes files of that kind when they are old."""
        aside = path.with_name(f".{path.name[:32]}.moved-aside-{secrets.token_hex(4)}")
        self.rename(path, aside)
        return aside

    def reflink(self, source_fd: int, target_fd: int) -> bool:
        """Shares the source's extents with the (empty) target; False where the file system cannot."""
        if sys.platform != "linux":
            return False
        try:
            fcntl.ioctl(target_fd, _FICLONE, source_fd)
        except OSError:
            return False
        return True

    def try_lock(self, fd: int) -> bool:
        """Takes flock(2) on an open file if nobody holds it. True too where locks do nothing."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def _temporary_name() -> str:
    """Nothing of the name that it will take: that may be as long as names can be. `gc` knows these."""
    return f".{secrets.token_hex(8)}.tmp"


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


def regular(path: Path) -> os.stat_result | None:
    """The status of a regular file that is no link; None for anything else.

    Raises:
        StoreError: nobody can tell: a directory on the way may not be entered, the disk fails.
    """
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise from_os_error(error, "look at", path) from error
    return status if stat.S_ISREG(status.st_mode) else None


def read_small(path: Path, limit_bytes: int) -> bytes | None:
    """Reads a regular file of at most `limit_bytes`; None if it is not there, no file, or larger.

    Raises:
        StoreError: it is there and cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise from_os_error(error, "read", path) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        with os_errors("read", path), os.fdopen(fd, "rb", closefd=False) as file:
            # Python makes room for all that is asked for before it reads: a cap of 256 MiB is not asked for.
            data = file.read(min(limit_bytes, status.st_size) + 1)
    finally:
        os.close(fd)
    return data if len(data) <= limit_bytes else None


def read_hint(path: Path, limit_bytes: int) -> bytes | None:
    """As `read_small`, for what only saves work: unreadable is as good as absent."""
    try:
        return read_small(path, limit_bytes)
    except StoreError:
        return None
