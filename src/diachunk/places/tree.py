"""The inside of somebody's cache: every directory below its root is entered by O_NOFOLLOW, so no link leads astray.

What is put somewhere is prepared under a temporary name in the same directory, then renamed: whoever looks sees the
old or the new, never half of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diachunk.errors import StoreError, from_os_error
from diachunk.places.base import ENTRIES_MAX, TEMPORARY_SUFFIX
from diachunk.store.files import Files

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HINTS = {
    errno.EACCES: "check the permissions there, or place elsewhere: --into DIR",
    errno.EPERM: "check the permissions there, or place elsewhere: --into DIR",
    errno.EROFS: "the file system is read-only; place elsewhere: --into DIR",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What has a name: its own status (of the link, if it is one), and where a link leads."""

    status: os.stat_result
    target: str | None = None

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def same(self, other: Found | None) -> bool:
        """Whether nothing happened to it in between."""
        if other is None:
            return False
        mine, theirs = (
            (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in (self.status, other.status)
        )
        return mine == theirs and self.target == other.target


class Lost(StoreError):
    """What was there a moment ago is gone: somebody else takes things away here at the same time."""


class Tree:
    """One cache to write into. Paths are relative, POSIX, and made by a place's layout.

    Args:
        owner: in every temporary name, so that only the store which made it takes it away.
    """

    def __init__(self, root: Path, files: Files, owner: str) -> None:
        self.root = root
        self._files = files
        self._head = f".{owner}-"
        self._touched: set[str] = set()
        self._found: set[str] = set()
        self._made: set[str] = set()
        self._root_is_sure = False

    def path(self, where: str) -> Path:
        return self.root / where

    def temporary(self) -> str:
        return f"{self._head}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"

    @contextlib.contextmanager
    def trouble(self, doing: str, where: str) -> Iterator[None]:
        """Maps an OSError of the block to one line that names the file; Lost where something is not there."""
        try:
            yield
        except OSError as error:
            mapped = from_os_error(error, doing, self.path(where))
            hint = _HINTS.get(error.errno or 0, mapped.hint)
            family = Lost if isinstance(error, FileNotFoundError) else StoreError
            raise family(mapped.message, hint=hint, errno=error.errno) from error

    @contextlib.contextmanager
    def directory(self, where: str, *, make: bool = False) -> Iterator[int]:
        """Opens the directory of that path, "" for the root; closed after the block.

        Raises:
            FileNotFoundError: it is not there and `make` is off.
            StoreError: a link or file is in its place, or it may not be entered.
        """
        fd = self._open_root(make=make)
        here = ""
        try:
            for part in filter(None, where.split("/")):
                if part in (".", ".."):
                    raise StoreError(f"{where!r:.200} is no path below {self.root}")
                here = posixpath.join(here, part)
                deeper = self._enter(fd, part, here, make=make)
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    def _open_root(self, *, make: bool) -> int:
        try:
            return os.open(self.root, _ENTER)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            with self.trouble("enter", ""):
                raise error
        with self.trouble("create", ""):
            self._files.make_root(self.root)
            self._root_is_sure = True
            return os.open(self.root, _ENTER)

    def settle_root(self) -> None:
        """Before names are given: whoever made the root may have been killed before its own name was flushed."""
        if not self._root_is_sure:
            self._root_is_sure = True
            for each in self.root.parents:
                self._files.settle(each)

    def _enter(self, fd: int, part: str, here: str, *, make: bool) -> int:
        if make:
            self._touched.add(posixpath.dirname(here))  # also for one that is there, as in `found`
            with self.trouble("create", here), contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
                self._made.add(here)
        try:
            return os.open(part, _ENTER | os.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                with self.trouble("enter", here):
                    raise
            link = stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode)
            what = "is a link: nothing is written through one" if link else "is in the way: no directory"
            raise StoreError(
                f"{self.path(here)} {what}", hint="move it away, or place elsewhere: --into DIR"
            ) from error

    def look(self, where: str) -> Found | None:
        """What has that name; None if nothing has."""
        head, name = posixpath.split(where)
        try:
            with self.directory(head) as fd:
                return look_at(fd, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            with self.trouble("look at", where):
                raise error

    def read_text(self, where: str, limit_bytes: int) -> bytes | None:
        """A small regular file; None if it is not there, no regular file, or larger."""
        head, name = posixpath.split(where)
        try:
            with self.directory(head) as directory:
                fd = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory
                )
        except OSError:
            return None
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(limit_bytes + 1)
        return data if len(data) <= limit_bytes else None

    def prepare_text(self, staging: str, data: bytes) -> str:
        """Writes a small file under a temporary name in a directory, flushed; returns that name."""
        temporary = self.temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.trouble("write", f"{staging}/{temporary}"), self.directory(staging, make=True) as directory:
            fd = os.open(temporary, flags, 0o666, dir_fd=directory)
            try:
                self._files.pwrite(fd, memoryview(data), 0)
                self._files.flush_data(fd)
            except BaseException:
                self.discard(staging, temporary)
                raise
            finally:
                os.close(fd)
        return temporary

    def put(self, where: str, staging: str, temporary: str) -> None:
        """Gives what was prepared its name, over whatever has it but a directory.

        Raises:
            Lost: what was prepared is not there any more.
        """
        head, name = posixpath.split(where)
        with self.directory(head) as fd, self.directory(staging) as source, self.trouble("write", where):
            os.rename(temporary, name, src_dir_fd=source, dst_dir_fd=fd)
        self._touched |= {head, staging}

    def move_aside(self, where: str) -> Path:
        """Gives what is in the way another name beside it. Nothing of a user's is ever removed."""
        head, name = posixpath.split(where)
        aside = f"{os.fsdecode(os.fsencode(name)[:200])}.moved-aside-{secrets.token_hex(4)}"
        with self.trouble("move", where), self.directory(head) as fd:
            self._files.rename(Path(name), Path(aside), dir_fd=fd)
        self._touched.add(head)
        return self.path(head) / aside

    def found(self, where: str) -> None:
        """Says that a name was given (or taken) before: whoever did that may have been killed before it was flushed."""
        while where:
            where = posixpath.dirname(where)
            self._found.add(where)

    def remove(self, where: str) -> None:
        """Removes a name. It is well if it is gone already."""
        head, name = posixpath.split(where)
        try:
            with self.directory(head) as fd:
                self._files.unlink(Path(name), dir_fd=fd)
        except FileNotFoundError:
            return
        self._touched.add(head)

    def discard(self, staging: str, temporary: str) -> None:
        """Takes away what was prepared, as far as that can be done."""
        with contextlib.suppress(OSError, StoreError):
            self.remove(posixpath.join(staging, temporary))

    def remove_empty(self, head: str) -> None:
        """Removes a directory if it is empty, then those above it, not the root itself. One that is gone already was
        removed by a run that did not get further.
        """
        while head:
            above, name = posixpath.split(head)
            try:
                with self.directory(above) as fd:
                    os.rmdir(name, dir_fd=fd)
                self._touched.discard(head)
                self._touched.add(above)
            except FileNotFoundError:
                self.found(head)
            except (OSError, StoreError):
                return
            head = above

    def abandon(self) -> None:
        """Removes the directories that were made here, if nothing came of them."""
        for head in sorted(self._made, key=lambda each: -each.count("/")):
            above, name = posixpath.split(head)
            with contextlib.suppress(OSError, StoreError), self.directory(above) as fd:
                os.rmdir(name, dir_fd=fd)
        self._made.clear()

    def sweep(self, head: str) -> None:
        """Removes temporary names of this store in a directory. Only while nobody else uses the store to place."""
        with contextlib.suppress(OSError, StoreError), self.directory(head) as fd:
            for name in os.listdir(fd)[:ENTRIES_MAX]:
                if name.startswith(self._head) and name.endswith(TEMPORARY_SUFFIX):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=fd)

    def flush(self) -> None:
        """Makes every name that was given, taken or found since durable."""
        for head in sorted(self._found - self._touched, key=lambda each: -each.count("/")):
            with contextlib.suppress(OSError, StoreError), self.directory(head) as fd:
                self._files.flush_dir(fd)
        self._found.clear()
        for head in sorted(self._touched, key=lambda each: -each.count("/")):
            with (
                self.trouble("flush", head),
                contextlib.suppress(FileNotFoundError),
                self.directory(head) as fd,
            ):
                self._files.flush_dir(fd)
        self._touched.clear()


def look_at(fd: int, name: str) -> Found | None:
    """The same in an open directory."""
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return Found(status, os.readlink(name, dir_fd=fd))
        return Found(status)
    except FileNotFoundError:
        return None
