"""What a connection meets before aiohttp does: addresses, caps, slow and endless requests. P1, P11, P15."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Callable
from typing import cast

from diachunk.limits import KiB, Limits
from diachunk.node.guard import Guard, parse_ip
from diachunk.node.serving.metrics import Metrics
from diachunk.node.serving.refusals import Refusals
from diachunk.node.serving.replies import ARRIVES_S, BODY_BYTES_MAX

HEADER_BYTES_MAX = 16 * KiB
_AHEAD_BYTES_MAX = 64 * KiB
"""What may come while a request is answered, besides its body: a little of those that follow."""
_ARRIVING_BYTES = 64 * KiB
_END = b"\r\n\r\n"


class Hall:
    """All connections of one node.

    Attributes:
        buffer: where bytes arrive, of whichever connection: they are copied out before the loop goes on. asyncio's own
            way takes 256 KiB from the allocator for each request of 200 bytes.
    """

    def __init__(self, guard: Guard, limits: Limits, metrics: Metrics, refusals: Refusals) -> None:
        self.guard = guard
        self.metrics = metrics
        self.refusals = refusals
        self.buffer = memoryview(bytearray(_ARRIVING_BYTES))
        self.connections_max = limits.node_connections_max
        self.per_address_max = max(8, limits.node_connections_max // 8)
        self.by_address: Counter[str] = Counter()
        self.doors: dict[asyncio.BaseTransport, Door] = {}

    def why_not(self, host: str) -> tuple[str, str] | None:
        """Status line and reason, for an address that may not come in."""
        if not self.guard.admits(parse_ip(host)):
            return "403 Forbidden", "this address may not ask; see --allow"
        if self.by_address[host] >= self.per_address_max or len(self.doors) >= self.connections_max:
            return "503 Service Unavailable", "too many connections"
        return None

    def begins(self, transport: asyncio.BaseTransport | None, *, body: bool) -> None:
        """A request has arrived whole, but for its body."""
        door = self.doors.get(transport) if transport is not None else None
        if door is not None:
            door.begins(body=body)

    def ends(self, transport: asyncio.BaseTransport | None) -> None:
        """It was answered: the next one may come."""
        door = self.doors.get(transport) if transport is not None else None
        if door is not None:
            door.ends()


class Door(asyncio.BufferedProtocol):
    """One connection: passes everything on to aiohttp's own protocol, if it is let in at all."""

    def __init__(self, hall: Hall, make: Callable[[], asyncio.Protocol]) -> None:
        self._hall = hall
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._timer: asyncio.TimerHandle | None = None
        self._in_hand = False
        self._received = 0
        self._room_bytes = _AHEAD_BYTES_MAX + BODY_BYTES_MAX
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        host = str(name[0]) if isinstance(name, tuple) else ""
        ip = parse_ip(host)
        host = str(ip) if ip is not None else host
        refusal = self._hall.why_not(host)
        if refusal is not None:
            self._refuse(host, *refusal)
            return
        self._host = host
        self._hall.by_address[host] += 1
        self._hall.doors[transport] = self
        self._hall.metrics.connections = len(self._hall.doors)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect()
        self._inner = self._make()
        self._inner.connection_made(transport)

    def _refuse(self, host: str, status: str, why: str) -> None:
        self._hall.metrics.refused()
        self._hall.refusals.note(host, why)
        text = json.dumps({"error": why})
        retry = "Retry-After: 1\r\n" if status.startswith("503") else ""
        if self._transport is not None:
            self._transport.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
                f"{retry}Connection: close\r\n\r\n{text}".encode()
            )
            self._transport.close()

    def _expect(self) -> None:
        """The rest of a request has so long to come."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ARRIVES_S, self._late)

    def _late(self) -> None:
        self._timer = None
        self._drop()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def begins(self, *, body: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._in_hand, self._received, self._tail = True, 0, b""
        self._room_bytes = _AHEAD_BYTES_MAX + (BODY_BYTES_MAX if body else 0)

    def ends(self) -> None:
        self._in_hand, self._received, self._tail = False, 0, b""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._hall.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._hall.buffer[:nbytes])
        if self._inner is None or self._too_much(data):
            return
        if not self._in_hand:
            self._expect()
        self._inner.data_received(data)

    def _too_much(self, data: bytes) -> bool:
        """Counts headers up to their end, and what comes after them."""
        self._received += len(data)
        if not self._in_hand:
            at = (self._tail + data).find(_END)
            self._tail = (self._tail + data)[-3:]
            # The end may have been found in an earlier piece: begins() is then about to be called.
            before = self._received - len(data)
            if at >= 0 and before + at <= HEADER_BYTES_MAX:
                self._in_hand, self._received = True, len(data) - at
                return False
            over = self._received > HEADER_BYTES_MAX
        else:
            over = self._received > self._room_bytes
        if over:
            self._drop()
        return over

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        transport, self._transport = self._transport, None
        if self._inner is None or transport is None:
            return
        self._hall.doors.pop(transport, None)
        self._hall.metrics.connections = len(self._hall.doors)
        self._hall.by_address[self._host] -= 1
        if not self._hall.by_address[self._host]:
            del self._hall.by_address[self._host]
        self._inner.connection_lost(error)
