"""The sockets that a node listens on."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

from diachunk.errors import DiachunkError, UsageError

_BACKLOG = 128
_LOOPBACK = ("127.0.0.1", "::1")


class PortTaken(DiachunkError):
    """Another process listens there. Not mended by trying again.

    Attributes:
        port: the last that was tried.
    """

    exit_code = 2

    def __init__(self, message: str, port: int, *, hint: str = "") -> None:
        self.port = port
        super().__init__(message, hint=hint)


def listen(host: str, ports: Iterable[int]) -> list[socket.socket]:
    """Listens on the first port that is free, on every address of this machine or those of `host`.

    Connections queue up until something accepts them: nothing is lost while the node's libraries load.

    Args:
        host: a name or address of this machine; "" for all.
        ports: at least one; 0 lets the system choose.

    Raises:
        PortTaken: none of them is free.
        UsageError: `host` is no address of this machine, or the port is for root alone.
    """
    addresses = _addresses(host)
    port = 0
    for port in ports:
        try:
            return _listen_on(addresses, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise _refused(error, host, port) from error
    raise PortTaken(f"port {port} is taken", port, hint="choose another: --port N")


def _listen_on(addresses: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    opened: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, address in addresses:
            one = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address, port))
                one.listen(_BACKLOG)
            except OSError as error:
                # A machine without IPv6 still has the address family, but no address.
                if opened and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    one.close()
                    continue
                raise
            one.setblocking(False)
            opened.append(one)
            port = one.getsockname()[1]
        undo.pop_all()
    return opened


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if not host:
        every = [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
        return every if _has_ipv6() else every[:1]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host:.80}: no such host", hint="an address of this machine") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as one:
            one.bind(("::", 0))
    except OSError:
        return False
    return True


def _refused(error: OSError, host: str, port: int) -> UsageError:
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} is for root alone", hint="choose one from 1024 up: --port 8420")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"--host {host:.80}: no address of this machine", hint="leave it out for all of them"
        )
    return UsageError(f"cannot listen on port {port}: {error.strerror}")


def shown_only_here(host: str) -> bool:
    """Whether nobody but this machine can reach it."""
    return all(address in _LOOPBACK for _, address in _addresses(host)) if host else False
