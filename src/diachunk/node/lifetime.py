"""One `serve` a store: the lock by which a second one, or a fetch on the same store, finds the first."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from diachunk.errors import StoreError, os_errors
from diachunk.store.layout import Layout
from diachunk.store.mounts import this_host

_TEXT_BYTES_MAX = 4096
_NODE = re.compile(r"[0-9a-f]{32}")
_LOOK_AGAIN_S = 0.02
_TRIES = 10
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Running:
    """A `serve` that runs on a store, on this host. `port` is 0 while it has not said yet where it listens."""

    port: int
    pid: int
    node: str


class Claim:
    """The right to serve a store, held as long as this process lives or `release` was not called."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def tell(self, port: int, node: str) -> None:
        """Lets a fetch on this store find the node.

        Raises:
            StoreError: the disk refused.
        """
        text = json.dumps({"port": port, "pid": os.getpid(), "node": node}) + "\n"
        with os_errors("write", self._path):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Lets go. The file stays: removed, it could be locked by two at once, by its old and its new self."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1


def claim(layout: Layout) -> Claim | None:
    """Claims a store for this process; None if another one serves it. Where locks do nothing, all may.

    Raises:
        StoreError: the store cannot be written to.
    """
    path = _path(layout)
    with os_errors("open", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, layout.files.file_mode)
    try:
        with contextlib.suppress(OSError):  # another user's file: it has its mode already
            os.fchmod(fd, layout.files.file_mode)
        for last in (*[False] * _TRIES, True):
            # Whoever only looks holds it for a moment.
            if _locks(fd):
                return Claim(path, fd)
            if not last:
                time.sleep(_LOOK_AGAIN_S)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _locks(fd: int) -> bool:
    """Whether this process has the lock now; True as well on a file system without locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def running(layout: Layout, wait_s: float = 0.0) -> Running | None:
    """The `serve` on this store and host; None if there is none.

    Args:
        wait_s: how long to wait for one that is just starting to say where it listens.
    """
    until = time.monotonic() + wait_s
    while True:
        text = _text_if_locked(_path(layout))
        if text is None:
            return None
        found = _parse(text)
        if found.port or time.monotonic() >= until:
            return found
        time.sleep(_LOOK_AGAIN_S)


def already_served(layout: Layout) -> StoreError:
    """What a second `serve` on a store says."""
    other = running(layout)
    who = f" by process {other.pid} on port {other.port}" if other is not None and other.port else ""
    return StoreError(
        f"the store {layout.root} is served already{who}",
        hint="one is enough: it shares all that this store has; `diachunk peers` shows it",
    )


def _path(layout: Layout) -> Path:
    """On a network file system each host has its own."""
    host = f".{this_host()}" if layout.shared_between_hosts else ""
    return layout.root / f"node{host}.json"


def _text_if_locked(path: Path) -> bytes | None:
    """What the file says while somebody holds its lock; None while nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            return os.pread(fd, _TEXT_BYTES_MAX, 0)
        return b""
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def _parse(text: bytes) -> Running:
    """What it says, bit by bit distrusted: other users may write to a shared store."""
    try:
        values = json.loads(text)
        port, pid, node = values["port"], values["pid"], values["node"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return Running(0, 0, "")
    if not isinstance(node, str) or not _NODE.fullmatch(node):
        return Running(0, 0, "")
    numbers = type(port) is int and type(pid) is int and 0 < port < 65536 and 0 < pid < 2**31
    return Running(port, pid, node) if numbers else Running(0, 0, "")
