"""Verified bytes of files to a socket by sendfile, without blocking the loop, without waiting for ever."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from diachunk.node.serving.pushing import push
from diachunk.node.serving.turns import SLOW_BPS
from diachunk.node.serving.uploads import PIECE_BYTES, Upload, Uploads
from diachunk.node.stock.disk import identity_of
from diachunk.node.stock.stock import Piece
from diachunk.store.mounts import file_system

_LOOK_S = 1.0
_SMALL_BYTES = 256 * 1024
_TCP_INFO_BYTES = 192
_BYTES_ACKED = struct.Struct("=Q"), 120
"""Where tcpi_bytes_acked lies in struct tcp_info (linux/tcp.h, since Linux 4.1)."""
_DEVICES_MAX = 64
_scratch = threading.local()
_memory_devices: dict[int, bool] = {}


class Changed(Exception):
    """The file is not the one that was verified, or is gone."""


class Cut(Exception):
    """The reader stood still for too long, or the file became shorter: the connection is of no use any more."""


def opened(piece: Piece) -> BinaryIO:
    """The file that was verified, open.

    Raises:
        Changed: there is none under its names.
    """
    for path in piece.paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        file = open(fd, "rb", buffering=0)
        if identity_of(os.fstat(fd))[: len(piece.identity)] == piece.identity and piece.identity:
            return file
        file.close()
    raise Changed(piece.paths)


def _cork(sock: socket.socket | None, how: int) -> None:
    if sock is not None and hasattr(socket, "TCP_CORK"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, how)


class Sender:
    """Sends the body of one response, piece by piece."""

    def __init__(self, request: web.Request, response: web.StreamResponse, stall_s: float) -> None:
        self._request = request
        self._transport = request.transport
        self._response = response
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._sendfile = hasattr(os, "sendfile")
        self._socket = _plain_socket(self._transport)
        self._corked = False

    async def head(self) -> None:
        """Headers, which leave together with the first bytes of the body: a reader that is woken for each takes the
        core away from whoever sends (tcp(7), TCP_CORK; Linux alone).
        """
        self._corked = True
        _cork(self._socket, 1)
        await self._response.prepare(self._request)

    async def send(self, pieces: Sequence[Piece], first: BinaryIO, upload: Upload, uploads: Uploads) -> None:
        """Sends them all; `first` is the open file of the first.

        Raises:
            Changed, Cut: the response is incomplete, its connection must be closed.
            ConnectionError: the reader went away.
        """
        for number, piece in enumerate(pieces):
            if number == 0:
                await self._send_piece(piece, first, upload, uploads)
            else:
                with opened(piece) as file:
                    await self._send_piece(piece, file, upload, uploads)

    async def _send_piece(self, piece: Piece, file: BinaryIO, upload: Upload, uploads: Uploads) -> None:
        offset, end = piece.offset, piece.offset + piece.size
        while offset < end:
            size = min(uploads.piece_bytes if _has_progress else _SMALL_BYTES, end - offset)
            await upload.ready(size)
            await self.send_part(file, offset, size, upload)
            offset += size

    async def send_part(self, file: BinaryIO, offset: int, size: int, upload: Upload | None) -> None:
        """Some MiB, for which there is a slot."""
        if not _on_memory(file.fileno()):
            for start in range(offset, offset + size, PIECE_BYTES):
                part = min(PIECE_BYTES, offset + size - start)
                if not _in_memory(file.fileno(), start, part):
                    await self._loop.run_in_executor(None, _read_ahead, file.fileno(), start, part)
        # A reader that keeps up must not keep the loop from all others. Before, not after: what several requests
        # need of Python is done in one go, while the processor's caches know it, and then their bytes are moved.
        await asyncio.sleep(0)
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError(errno.ECONNRESET, "the reader is gone")
        at_once = self._push(transport, file, offset, size)
        if self._corked:
            self._corked = False
            _cork(self._socket, 0)
        if at_once < size:
            await self._send_rest(transport, file, offset + at_once, size - at_once, upload)
        if upload is not None:
            upload.sent(size)

    def _push(self, transport: asyncio.WriteTransport, file: BinaryIO, offset: int, size: int) -> int:
        """Gives the socket what it takes without waiting, often all; the loop's own way costs a task, a timer and six
        system calls. Returns how much.
        """
        if self._socket is None or not self._sendfile or transport.get_write_buffer_size():
            return 0
        return push(file.fileno(), self._socket.fileno(), offset, size)

    async def _send_rest(
        self,
        transport: asyncio.WriteTransport,
        file: BinaryIO,
        offset: int,
        size: int,
        upload: Upload | None,
    ) -> None:
        if not self._sendfile:
            await self._copy(file, offset, size, upload)
            return
        task = asyncio.ensure_future(self._loop.sendfile(transport, file, offset, size, fallback=False))
        try:
            sent = await self._watched(task, transport, upload)
        except (asyncio.SendfileNotAvailableError, RuntimeError):
            self._sendfile = False  # TLS, or a file system without: a broken connection shows in the copy
            await self._copy(file, offset, size, upload)
            return
        if sent != size:
            raise Cut("the file became shorter")

    async def _copy(self, file: BinaryIO, offset: int, size: int, upload: Upload | None) -> None:
        data = await self._loop.run_in_executor(None, os.pread, file.fileno(), size, offset)
        if len(data) != size:
            raise Cut("the file became shorter")
        task = asyncio.ensure_future(self._write(data))
        await self._watched(task, self._transport, upload)

    async def _write(self, data: bytes) -> int:
        await self._response.write(data)
        return len(data)

    async def _watched(
        self, task: asyncio.Task[int], transport: asyncio.BaseTransport | None, upload: Upload | None
    ) -> int:
        """Waits for a part to be gone, and watches whether the reader reads meanwhile."""
        before = _acked(transport)
        try:
            done, _ = await asyncio.wait({task}, timeout=_LOOK_S)
            if not done:
                await self._look_after(task, transport, upload, before)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                # Its callbacks let go of the socket before anybody closes it.
                await asyncio.wait({task})
            if task.done() and not task.cancelled():
                task.exception()  # looked at: a reader that goes ends this wait first, and asyncio would print it

    async def _look_after(
        self,
        task: asyncio.Task[int],
        transport: asyncio.BaseTransport | None,
        upload: Upload | None,
        before: int,
    ) -> None:
        """Looks once more every second: `before` is what was acknowledged a second ago."""
        stood_s = 0.0
        while True:
            now = _acked(transport)
            moved, before = now - before, now
            stood_s = 0.0 if moved > 0 else stood_s + _LOOK_S
            if upload is not None and moved < SLOW_BPS * _LOOK_S:
                upload.stands()
            if stood_s >= self._stall_s:
                raise Cut(f"took nothing for {self._stall_s:.0f} s")
            done, _ = await asyncio.wait({task}, timeout=_LOOK_S)
            if done:
                return


def _plain_socket(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    """What bytes can be given to as they are; None: TLS lies between."""
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return None
    found: socket.socket | None = transport.get_extra_info("socket")
    return found


def _acked(transport: asyncio.BaseTransport | None) -> int:
    """Bytes that the other end has acknowledged on this connection; 0 where nobody can tell."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not _has_progress:
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(_BYTES_ACKED[0].unpack_from(info, _BYTES_ACKED[1])[0])
    except (OSError, struct.error):
        return 0


_has_progress = hasattr(socket, "TCP_INFO") and os.uname().sysname == "Linux"


def _in_memory(fd: int, offset: int, size: int) -> bool:
    """Whether the first and last byte can be had without waiting for the disk: preadv2(2), RWF_NOWAIT."""
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return False
    byte = [bytearray(1)]
    try:
        return all(os.preadv(fd, byte, at, flag) == 1 for at in (offset, offset + size - 1))
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP and _on_memory(fd)


def _on_memory(fd: int) -> bool:
    """Whether its file system is memory itself, which cannot tell."""
    device = os.fstat(fd).st_dev
    if device not in _memory_devices:
        if len(_memory_devices) >= _DEVICES_MAX:
            _memory_devices.clear()
        _memory_devices[device] = file_system(Path(f"/proc/self/fd/{fd}")) in ("tmpfs", "ramfs")
    return _memory_devices[device]


def _read_ahead(fd: int, offset: int, size: int) -> None:
    """Brings it into the page cache. A reused buffer: what is read is thrown away."""
    buffer = getattr(_scratch, "buffer", None)
    if buffer is None:
        buffer = _scratch.buffer = memoryview(bytearray(PIECE_BYTES))
    try:
        os.preadv(fd, [buffer[: min(size, PIECE_BYTES)]], offset)
    except OSError:
        return  # sendfile meets the same error, and says so
