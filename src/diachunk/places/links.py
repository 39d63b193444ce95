"""How one file's bytes come to be somewhere else: reflink, hard link, symbolic link, copy."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diachunk.digest import hasher
from diachunk.errors import IntegrityError, StoreError, from_os_error
from diachunk.limits import MiB
from diachunk.places.proof import Held
from diachunk.places.records import How
from diachunk.store.files import Files
from diachunk.store.stamps import Stamp

_PIECE_BYTES = 4 * MiB
CANNOT = (
    errno.EXDEV,
    errno.EPERM,
    errno.EMLINK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
)
"""What a file system says that has no such links, or none from there to here."""


class LinkMode(enum.Enum):
    """Which kind of link is wanted. AUTO takes the first that works, and says which."""

    AUTO = "auto"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    COPY = "copy"

    @property
    def ways(self) -> tuple[How, ...]:
        """In the order in which they are tried."""
        if self is LinkMode.AUTO:
            return (How.REFLINK, How.HARDLINK, How.SYMLINK, How.COPY)
        return (How(self.value),)


class CannotLink(Exception):
    """Not by this kind of link, not here; the text says why."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file that is ready under a temporary name in `staging`. `stamp` stays true when it is renamed."""

    temporary: str
    how: How
    stamp: Stamp | None
    target: str = ""
    staging: str = ""


def make(held: Held, fd: int, temporary: str, how: How, files: Files, read: Callable[[int], None]) -> Made:
    """Makes `temporary` in the open directory `fd` show the held file's bytes, flushed.

    Args:
        read: told the bytes that were copied.

    Raises:
        CannotLink: this file cannot be linked so, or nothing can in this directory.
        IntegrityError: the bytes copied are not the file's.
        StoreError: the held file changed, or cannot be read.
        OSError: the directory refused.
    """
    match how:
        case How.REFLINK:
            return _reflink(held, fd, temporary, files)
        case How.HARDLINK:
            return _hardlink(held, fd, temporary)
        case How.SYMLINK:
            return _symlink(held, fd, temporary)
        case _:
            return _copy(held, fd, temporary, files, read)


def _symlink(held: Held, fd: int, temporary: str) -> Made:
    """Absolute: this directory may be moved, or seen under another path, and the store stays where it is."""
    target = os.path.abspath(held.path)
    try:
        os.symlink(target, temporary, dir_fd=fd)
    except OSError as error:
        raise _cannot(error, "no symbolic links there") from error
    return Made(temporary, How.SYMLINK, held.stamp, target)


def _hardlink(held: Held, fd: int, temporary: str) -> Made:
    """Only what nobody may write to: a hard link to a file of the user's would change with it."""
    if held.adopted is not None:
        raise CannotLink("the file is not diachunk's own, and may be changed by its owner")
    try:
        os.link(held.path, temporary, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        raise _cannot(error, "no hard links from the store to there") from error
    status = os.stat(temporary, dir_fd=fd, follow_symlinks=False)
    if not held.stamp.matches(status):
        raise _changed(held)
    if status.st_mode & 0o222:
        raise CannotLink("the store's file is not read-only")
    return Made(temporary, How.HARDLINK, Stamp.of(status))


def _reflink(held: Held, fd: int, temporary: str, files: Files) -> Made:
    source = _open(held)
    try:
        target = _create(fd, temporary)
        try:
            if not files.reflink(source, target):
                raise CannotLink("the file system does not share blocks between files")
            if not held.stamp.matches(os.fstat(source)):
                raise _changed(held)
            files.flush_data(target)
            return Made(temporary, How.REFLINK, Stamp.of(os.fstat(target)))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy(held: Held, fd: int, temporary: str, files: Files, read: Callable[[int], None]) -> Made:
    """Hashed while it is written: what is placed is what was hashed."""
    running, buffer = hasher(), memoryview(bytearray(min(_PIECE_BYTES, held.file.size + 1)))
    source, offset = _open(held), 0
    try:
        target = _create(fd, temporary)
        try:
            while size := _read_at(source, buffer, offset, held):
                files.pwrite(target, buffer[:size], offset)
                running.update(buffer[:size])
                read(size)
                offset += size
            if running.digest() != held.file.blake3:
                raise IntegrityError(
                    f"{held.path} is damaged: its bytes are not what they were when they were verified",
                    hint="`diachunk verify --repair`, then place again",
                )
            files.flush_data(target)
            return Made(temporary, How.COPY, Stamp.of(os.fstat(target)))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _read_at(source: int, buffer: memoryview, offset: int, held: Held) -> int:
    try:
        return os.preadv(source, [buffer], offset)
    except OSError as error:
        raise from_os_error(error, "read", held.path) from error


def _open(held: Held) -> int:
    try:
        fd = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os_error(error, "read", held.path) from error
    if not held.stamp.matches(os.fstat(fd)):
        os.close(fd)
        raise _changed(held)
    return fd


def _create(fd: int, temporary: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(temporary, flags, 0o666, dir_fd=fd)


def _cannot(error: OSError, why: str) -> Exception:
    return CannotLink(f"{why}: {error.strerror}") if error.errno in CANNOT else error


def _changed(held: Held) -> StoreError:
    return StoreError(
        f"{Path(held.path)} changed since it was verified",
        hint="`diachunk verify` says what is wrong with it",
    )
