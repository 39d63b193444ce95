"""A TCP proxy on loopback that makes the line to a server worse: slow, late, uneven, cut, or silent.

It knows nothing of HTTP and so stands before any server, TLS too. One thread, any number of connections:

    line = Line(down_bps=2_000_000, latency_s=0.05, breaks=Break(How.RESET, (300_000, 3_000_000)))
    with Nginx(root) as server, FaultProxy(server.url, line, seed=7) as proxy:
        fetch(proxy.url + "/model.safetensors")
    assert proxy.down_bytes < 1.1 * size

"Down" is from the server to the client. What is drawn (where a connection breaks, each delay) depends on the seed
and the connection's number alone; which connection asks for what is up to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from diachunk.testing.lines import GOOD, How, Line, Script, steady

_PIECE_BYTES = 64 * 1024
_PIECES_HELD = 16
_PIECE_S = 0.01
_TICK_S = 0.01
_BURST_S = 0.02
"""How late a paced piece may be and still keep its place: a sleep always lasts a little too long."""
_CONNECT_S = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _BrokenError(Exception):
    """This connection is over. `how` is CLOSE or RESET."""

    def __init__(self, how: How) -> None:
        self.how = how
        super().__init__(how.value)


@dataclass(slots=True)
class _Connection:
    """One client. `luck` places its break between the bounds."""

    number: int
    luck: float
    down_bytes: int = 0


@dataclass(slots=True)
class _Way:
    """One direction, over all connections: its pace and its count."""

    down: bool
    carried_bytes: int = 0
    free_at: float = 0.0

    def cap(self, line: Line) -> float | None:
        return line.down_bps if self.down else line.up_bps


@dataclass(slots=True)
class _Pieces:
    """Pieces on their way, each due at a time; b"" is the end. Bounded, as a line's buffers are."""

    queue: asyncio.Queue[tuple[float, bytes]] = field(default_factory=lambda: asyncio.Queue(_PIECES_HELD))
    last_due: float = 0.0

    async def put(self, data: bytes, delay_s: float) -> None:
        self.last_due = max(self.last_due, time.monotonic() + delay_s)
        await self.queue.put((self.last_due, data))

    async def arrive(self) -> AsyncIterator[bytes]:
        while True:
            due, data = await self.queue.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                return
            yield data


class FaultProxy:
    """Carries every connection to the server of `url`, the way `line` says.

    Args:
        url: of the server: http(s), with a port. `proxy.url` is the same one with the proxy's address.
        line: a line, or a script of how it changes.
        seed: of all that is drawn.
        host: the address to listen on.

    Attributes:
        accepted: connections so far.
    """

    def __init__(
        self, url: str, line: Line | Script = GOOD, *, seed: int = 0, host: str = "127.0.0.1"
    ) -> None:
        split = urlsplit(url)
        self._server = (split.hostname or "127.0.0.1", split.port or (443 if split.scheme == "https" else 80))
        self._seed = seed
        self._script = steady(line) if isinstance(line, Line) else line
        self._started_at = time.monotonic()
        self._ways = {True: _Way(True), False: _Way(False)}
        self._hung: set[int] = set()
        self._ended = 0
        self.accepted = 0
        self._listener = socket.create_server((host, 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.url = split._replace(netloc=f"{host}:{self.port}").geturl()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy-{self.port}", daemon=True)
        self._thread.start()

    @property
    def down_bytes(self) -> int:
        """Bytes given to clients so far, headers and encryption included."""
        return self._ways[True].carried_bytes

    @property
    def up_bytes(self) -> int:
        """Bytes given to the server so far."""
        return self._ways[False].carried_bytes

    @property
    def broken(self) -> int:
        """Connections that the line has closed, reset or hung."""
        return self._ended + len(self._hung)

    @property
    def line(self) -> Line:
        """The line as it is now. May be set at any time, and stays so."""
        return self._script(time.monotonic() - self._started_at)

    @line.setter
    def line(self, line: Line) -> None:
        self._script = steady(line)

    def close(self) -> None:
        """Ends every connection and the thread. May be called again."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended between the two
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- connections ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._accept())
        finally:
            self._loop.close()
            self._listener.close()

    async def _accept(self) -> None:
        serving: set[asyncio.Task[None]] = set()

        def accept() -> None:
            with contextlib.suppress(OSError):  # it went away while it waited
                client, _ = self._listener.accept()
                self.accepted += 1
                task = asyncio.create_task(self._serve(client, self.accepted))
                serving.add(task)
                task.add_done_callback(serving.discard)
                # a task that is cancelled before it starts closes nothing itself
                task.add_done_callback(lambda ended: client.close())

        self._loop.add_reader(self._listener, accept)
        await self._stop.wait()
        self._loop.remove_reader(self._listener)
        await _end([*serving])

    async def _serve(self, client: socket.socket, number: int) -> None:
        connection = _Connection(number, random.Random(f"{self._seed}/{number}").random())
        server = socket.socket()
        how = How.RESET
        try:
            for each in (client, server):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(_CONNECT_S):
                await self._loop.sock_connect(server, self._server)
            await self._carry(connection, client, server)
            how = How.CLOSE
        except _BrokenError as broken:
            self._ended += 1
            how = broken.how
        except OSError:
            pass  # either end broke it: the other sees a reset
        finally:
            for each in (client, server):
                if how is How.RESET:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                each.close()

    async def _carry(self, connection: _Connection, client: socket.socket, server: socket.socket) -> None:
        """Returns when both ends have said all; raises what broke it."""
        up, down = _Pieces(), _Pieces()
        pumps = [
            asyncio.create_task(each)
            for each in (
                self._read(connection, client, up, "up"),
                self._write(connection, up, server, self._ways[False]),
                self._read(connection, server, down, "down"),
                self._write(connection, down, client, self._ways[True]),
            )
        ]
        watch = asyncio.create_task(self._watch(connection))
        try:
            pending = {*pumps}
            while pending:
                done, _ = await asyncio.wait({*pending, watch}, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
                pending -= done
        finally:
            await _end([*pumps, watch])

    async def _watch(self, connection: _Connection) -> None:
        """Breaks the connection also while nothing moves on it."""
        while True:
            self._left_bytes(connection)
            await asyncio.sleep(_TICK_S)

    def _left_bytes(self, connection: _Connection) -> int:
        """How many bytes it still carries down: 0 while it hangs.

        Raises:
            _BrokenError: none, and it ends.
        """
        breaks = self.line.breaks
        if breaks is None:
            return _PIECE_BYTES
        low, high = breaks.after_bytes
        left = low + int(connection.luck * (high - low)) - connection.down_bytes
        if left > 0:
            return left
        if breaks.how is How.HANG:
            self._hung.add(connection.number)
            return 0
        raise _BrokenError(breaks.how)

    # --- pieces --------------------------------------------------------------------------------------------

    async def _read(self, connection: _Connection, source: socket.socket, pieces: _Pieces, way: str) -> None:
        rng = random.Random(f"{self._seed}/{connection.number}/{way}")
        data = b"-"
        while data:
            data = await self._loop.sock_recv(source, _PIECE_BYTES)
            await pieces.put(data, self.line.latency_s + self.line.jitter_s * rng.random())

    async def _write(
        self, connection: _Connection, pieces: _Pieces, target: socket.socket, way: _Way
    ) -> None:
        async for data in pieces.arrive():
            rest = memoryview(data)
            while rest:
                if not (left := self._left_bytes(connection)):
                    await asyncio.sleep(_TICK_S)
                    continue
                size = await self._paced(way, min(len(rest), left) if way.down else len(rest))
                # counted before the client can have them, so that who has read them finds them counted
                way.carried_bytes += size
                connection.down_bytes += size if way.down else 0
                await self._loop.sock_sendall(target, rest[:size])
                rest = rest[size:]
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    async def _paced(self, way: _Way, size_bytes: int) -> int:
        """Waits for its turn on a line with a cap; returns how many of the bytes may go now."""
        bps = way.cap(self.line)
        if bps is None:
            return size_bytes
        size_bytes = min(size_bytes, max(1, int(bps * _PIECE_S)))
        now = time.monotonic()
        way.free_at = max(way.free_at, now - _BURST_S) + size_bytes / bps
        await asyncio.sleep(max(0.0, way.free_at - now))
        return size_bytes


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
