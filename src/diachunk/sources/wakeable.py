"""Connections beneath an origin: their waits can be ended from another thread, private addresses refused."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from diachunk.sources.base import Flow


class PrivateAddress(OSError):
    """A host that only a manifest named turned out to be on a private network."""


def _is_private(text: str) -> bool:
    address = ipaddress.ip_address(text.split("%", 1)[0])
    return not (getattr(address, "ipv4_mapped", None) or address).is_global


def _private(host: str) -> PrivateAddress:
    return PrivateAddress(f"{host} is a private address that only the manifest names: not asked")


def _refuse_private(sock: socket.socket | None) -> None:
    """Once more, on the connected address: whatever led here, nothing is sent to it."""
    if sock is not None and _is_private(address := str(sock.getpeername()[0])):
        sock.close()
        raise _private(address)


def refuse_private_name(host: str) -> None:
    """Behind a proxy only the proxy resolves names; what needs no resolving is refused here."""
    bare = host.strip("[]").rstrip(".").lower()
    try:
        private = _is_private(bare)
    except ValueError:
        private = "." not in bare or bare.endswith((".localhost", ".local", ".internal"))
    if private:
        raise _private(host)


waiting = threading.local()
"""`waiting.flow`: the request for which this thread waits, if any."""


class _Wakeable(HTTPConnection):
    """A connection whose wait for the reply's header can be ended from another thread.

    A socket's timeout starts over with each byte, so a server that sends its header one byte at a time, or
    one interim reply after another, would hold a lane for ever.
    """

    def getresponse(self) -> Any:
        flow: Flow | None = getattr(waiting, "flow", None)
        if flow is not None:
            flow.on_cancel(self._wake)
        return super().getresponse()

    def _wake(self) -> None:
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown, which takes the encryption off under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _WakeableHTTPS(_Wakeable, HTTPSConnection):
    pass


class _PublicHTTPConnection(_Wakeable):
    """Connects to public addresses only, without so much as knocking at others."""

    def _new_conn(self) -> socket.socket:
        if self.proxy:
            return super()._new_conn()
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
        public = [each for each in addresses if not _is_private(each)]
        if not public:
            raise _private(addresses[0] if addresses else self.host)
        for address in public[:-1]:
            with contextlib.suppress(OSError):
                return self._connect_to(address)
        return self._connect_to(public[-1])

    def _connect_to(self, address: str) -> socket.socket:
        return create_connection(
            (address, self.port),
            self.timeout,
            source_address=self.source_address,
            socket_options=self.socket_options,
        )

    def connect(self) -> None:
        super().connect()
        if not self.proxy:
            _refuse_private(self.sock)


class _PublicHTTPSConnection(_PublicHTTPConnection, HTTPSConnection):
    pass


class HTTPPool(HTTPConnectionPool):
    ConnectionCls = _Wakeable


class HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WakeableHTTPS


class PublicHTTPPool(HTTPConnectionPool):
    ConnectionCls = _PublicHTTPConnection


class PublicHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection
