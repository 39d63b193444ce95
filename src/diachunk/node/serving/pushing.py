"""Bytes of a file into a socket, as many as it takes without waiting: splice(2) where there is one, else sendfile(2).

sendfile moves 64 KiB a step through a pipe of its own inside the kernel; steps of 1 MiB take a little less of the
processor's time (docs/benchmarks.md).
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from contextlib import suppress

from diachunk.limits import MiB

_PIPE_BYTES = MiB
_kept = threading.local()


def push(fd: int, sock_fd: int, offset: int, size: int) -> int:
    """Gives the socket, which must not block, what it takes of these bytes. Returns how many that were: fewer also
    where the file ends, or something is wrong with either; who sends the rest meets that again.
    """
    if not hasattr(os, "splice"):
        return _sendfile(fd, sock_fd, offset, size)
    try:
        pipe: _Pipe = _kept.__dict__.pop("pipe", None) or _Pipe()
    except OSError:  # no descriptors are left
        return _sendfile(fd, sock_fd, offset, size)
    sent, left = pipe.push(fd, sock_fd, offset, size)
    if not left:  # else it goes, with what the socket did not take: that must not reach another one
        _kept.pipe = pipe
    return sent


def _sendfile(fd: int, sock_fd: int, offset: int, size: int) -> int:
    sent = 0
    with suppress(OSError):
        while sent < size:
            more = os.sendfile(sock_fd, fd, offset + sent, size - sent)
            if not more:
                break
            sent += more
    return sent


class _Pipe:
    """A pipe of one thread, empty between two calls. Closed with its last reference.

    Raises:
        OSError: there is none to be had.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, _close, self._out, self._in)
        with suppress(OSError):  # this user has too many large pipes: pipe(7), pipe-user-pages-soft
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._bytes = fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ)

    def push(self, fd: int, sock_fd: int, offset: int, size: int) -> tuple[int, int]:
        """How much the socket took, and how much is left in the pipe."""
        sent = inside = 0
        with suppress(OSError):
            while sent < size:
                inside = os.splice(fd, self._in, min(self._bytes, size - sent), offset_src=offset + sent)
                if not inside:
                    break
                while inside:
                    more = os.SPLICE_F_MORE if sent + inside < size else 0
                    taken = os.splice(self._out, sock_fd, inside, flags=os.SPLICE_F_NONBLOCK | more)
                    if not taken:
                        return sent, inside
                    inside -= taken
                    sent += taken
        return sent, inside


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)
