"""An HTTP/1.1 server on loopback that misbehaves on demand, for the faults that no real server has to offer.

Without a script it is a correct static file server: keep-alive, HEAD, Range, If-Range, ETag, Last-Modified.
Bodies are built in memory, so it is for test-sized files.

    with BadServer(root, first(2, Reset(after_bytes=1000))) as server:
        fetch(server.url + "/model.safetensors")
    assert [exchange.request.range for exchange in server.exchanges] == [...]
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from io import BufferedIOBase
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from diachunk.testing.faults import Fault, Script
from diachunk.testing.reply import Ending, Reply, Request, Resource, honest

_LINE_BYTES_MAX = 65536
_HEADERS_MAX = 200
_PIECE_BYTES = 256 * 1024
_DRIP_INTERVAL_S = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Exchange:
    """One request as it arrived, and what became of it.

    Attributes:
        number: 1, 2, ... in order of arrival.
        fault: what the script chose, or None.
        status: of the answer, even where the fault kept it from being sent.
        body_bytes: bytes of the body given to the socket so far.
    """

    request: Request
    number: int
    connection: int
    fault: Fault | None
    status: int
    body_bytes: int = 0


class BadServer:
    """Serves the files under `root`, and does to each request what `script` says (see `faults`).

    Attributes:
        script: may be replaced at any time; it is asked once a request.
        port: on 127.0.0.1.
    """

    def __init__(self, root: Path, script: Script | None = None) -> None:
        self.script = script
        self._root = root
        self._changed = threading.Condition()
        self._exchanges: list[Exchange] = []
        self._connections: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._accepted = 0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"bad-server-{self.port}", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def exchanges(self) -> list[Exchange]:
        """What was asked so far, in order of arrival."""
        with self._changed:
            return list(self._exchanges)

    @property
    def body_bytes(self) -> int:
        """Bytes of all bodies given to sockets so far."""
        return sum(exchange.body_bytes for exchange in self.exchanges)

    def wait_for_requests(self, count: int, timeout_s: float = 10.0) -> list[Exchange]:
        """Blocks until so many requests have arrived, and returns them.

        Raises:
            TimeoutError: they did not come.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._exchanges) >= count, timeout_s):
                raise TimeoutError(f"{len(self._exchanges)} of {count} requests within {timeout_s} s")
            return list(self._exchanges)

    def close(self) -> None:
        """Ends every connection, stalled and dripping ones too, and every thread. May be called again."""
        with self._changed:
            if self._closing.is_set():
                return
            self._closing.set()
            for connection in self._connections.values():
                _wake(connection)
        # closing a listening socket does not wake its accept(), but a connection does, on every system
        with socket.socket() as waker:
            waker.connect_ex(("127.0.0.1", self.port))
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                raise
            with self._changed:
                if self._closing.is_set():
                    connection.close()
                    return
                self._accepted += 1
                number = self._accepted
                self._connections[number] = connection
                thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
                self._threads = [known for known in self._threads if known.is_alive()] + [thread]
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as lines:
                for request, keep in _requests(lines):
                    if not self._answer(connection, number, request, keep):
                        break
        except OSError:
            pass  # the client went away, which is its right
        finally:
            with self._changed:
                del self._connections[number]
                connection.close()

    def _answer(self, connection: socket.socket, number: int, request: Request, keep: bool) -> bool:
        """Sends the answer; returns whether the connection goes on."""
        reply = honest(request, self._resource(request.path))
        with self._changed:
            count = len(self._exchanges) + 1
            fault = self.script(request, count) if self.script else None
            if fault is not None:
                reply = fault.apply(request, reply)
            exchange = Exchange(request, count, number, fault, reply.status)
            self._exchanges.append(exchange)
            self._changed.notify_all()
        if not keep and reply.ending is Ending.KEEP:
            reply = reply.with_headers(Connection="close")
        if reply.header_sent:
            connection.sendall(_head(reply))
        if request.method != "HEAD":
            self._send_body(connection, reply, exchange)
        match reply.ending:
            case Ending.RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            case Ending.STALL:
                while connection.recv(4096):
                    pass  # until the client hangs up, or close() wakes this
        return keep and reply.ending is Ending.KEEP

    def _send_body(self, connection: socket.socket, reply: Reply, exchange: Exchange) -> None:
        rest = memoryview(reply.body)[: reply.sent_bytes]
        piece_bytes = _PIECE_BYTES
        if reply.bytes_per_s is not None:
            piece_bytes = max(1, round(reply.bytes_per_s * _DRIP_INTERVAL_S))
        while rest:
            piece = rest[:piece_bytes]
            # counted before the client can have them, so that who has read a body finds it counted
            exchange.body_bytes += len(piece)
            try:
                sent = connection.send(piece)
            except OSError:
                exchange.body_bytes -= len(piece)
                raise
            exchange.body_bytes -= len(piece) - sent
            rest = rest[sent:]
            if reply.bytes_per_s is not None and rest and self._closing.wait(sent / reply.bytes_per_s):
                raise ConnectionAbortedError("the server closes")

    def _resource(self, path: str) -> Resource | None:
        segments = unquote(path.partition("?")[0]).lstrip("/").split("/")
        if any(segment in ("", ".", "..") or "\0" in segment for segment in segments):
            return None
        try:
            with self._root.joinpath(*segments).open("rb") as file:
                content = file.read()
            stat = self._root.joinpath(*segments).stat()
        except OSError:
            return None
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        return Resource(content, etag, formatdate(stat.st_mtime, usegmt=True))


def refused_port() -> int:
    """A port on 127.0.0.1 where connections are refused, and on which nothing else can listen.

    Its socket is bound, does not listen, and stays open until the process ends.
    """
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    holder.detach()
    return port


def _wake(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client was faster


def _requests(lines: BufferedIOBase) -> Iterator[tuple[Request, bool]]:
    """Yields the requests of one connection, and whether each allows another; ends at anything malformed."""
    while words := lines.readline(_LINE_BYTES_MAX).decode("latin-1").split():
        if len(words) != 3:
            return
        headers: dict[str, str] = {}
        for _ in range(_HEADERS_MAX):
            name, colon, value = lines.readline(_LINE_BYTES_MAX).decode("latin-1").partition(":")
            if not colon:
                break
            headers[name.strip().lower()] = value.strip()
        keep = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        # a body is not read, so what follows it could not be told from one
        keep = keep and headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        yield Request(words[0], words[1], headers), keep


def _head(reply: Reply) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [
        f"HTTP/1.1 {reply.status} {reason}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
