"""Who may ask: addresses, the Host header, other sites' pages, the lab's secret. P11, P12, P13 of docs/protocol.md."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from diachunk.errors import UsageError
from diachunk.node.model import Address
from diachunk.sources.secret import Secret

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_NEAR = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
_ROUTES_BYTES_MAX = 1024 * 1024
_REREAD_S = 30.0
_HOSTS_MAX = 256
_RTF_UP, _RTF_GATEWAY = 1, 2
_PREFIX_MIN = {4: 8, 6: 32}
"""A "directly connected" network wider than that is a tunnel's default route in disguise."""


def parse_cidrs(texts: Iterable[str]) -> tuple[Network, ...]:
    """Reads `--allow`.

    Raises:
        UsageError: one is no address or network.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise UsageError(
                f"--allow {text!r:.80}: no address or network", hint="such as 141.20.0.0/16"
            ) from error
    return tuple(found)


@lru_cache(4096)
def parse_ip(text: str) -> IP | None:
    """An address as sockets and headers show it; an IPv4 address in IPv6 clothes is IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class Near:
    """Which addresses are this machine's own, private, or of a network it is connected to directly."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, proc_net: Path = Path("/proc/net")
    ) -> None:
        self._clock = clock
        self._proc_net = proc_net
        self._connected: tuple[Network, ...] = ()
        self._read_at: float | None = None

    def __call__(self, ip: IP) -> bool:
        return any(ip in network for network in _NEAR) or any(ip in network for network in self.connected())

    def connected(self) -> tuple[Network, ...]:
        """Networks of this machine's interfaces. Read again now and then: interfaces come and go."""
        now = self._clock()
        if self._read_at is None or now - self._read_at > _REREAD_S:
            self._read_at = now
            self._connected = tuple(_connected(self._proc_net))
        return self._connected


_near = Near()


def is_near(ip: str | IP) -> bool:
    """Whether P11 lets this address in without `--allow`. False for what is no address."""
    address = parse_ip(ip) if isinstance(ip, str) else ip
    return address is not None and _near(address)


def _connected(proc_net: Path) -> Iterable[Network]:
    """Source: proc(5), /proc/net/route and /proc/net/if_inet6. Nothing where there is no such thing."""
    for line in _lines(proc_net / "route")[1:]:
        try:
            _, target, _, flags, _, _, _, mask = line.split()[:8]
            if int(flags, 16) & _RTF_GATEWAY or not int(flags, 16) & _RTF_UP:
                continue
            prefix = int(mask, 16).bit_count()
            network = IPv4Network((struct.pack("=I", int(target, 16)), prefix))
        except (ValueError, struct.error):
            continue
        if network.prefixlen >= _PREFIX_MIN[4]:
            yield network
    for line in _lines(proc_net / "if_inet6"):
        try:
            address, _, prefix_hex = line.split()[:3]
            around = IPv6Network((bytes.fromhex(address), int(prefix_hex, 16)), strict=False)
        except ValueError:
            continue
        if around.prefixlen >= _PREFIX_MIN[6]:
            yield around


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(_ROUTES_BYTES_MAX).splitlines()
    except OSError:
        return []


class Guard:
    """What is asked of everybody before a request is looked at."""

    def __init__(
        self,
        allow: Sequence[Network] = (),
        secret: Secret | None = None,
        *,
        near: Callable[[IP], bool] = _near,
        names: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        allow: networks let in besides those nearby.
        names: this machine's own, besides what the system calls it.
        """
        self.secret = secret
        self._allow = tuple(allow)
        self._near = near
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        self._clock = clock
        self._hosts: dict[str, bool] = {}

    def also_called(self, name: str) -> None:
        """One more name of this machine."""
        self._names.add(name.lower().rstrip("."))
        self._hosts.clear()

    def admits(self, ip: IP | None) -> bool:
        """Whether somebody at this address may ask at all (P11)."""
        return ip is not None and (self._near(ip) or any(ip in network for network in self._allow))

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this machine in a way that no page of elsewhere can (P12)."""
        if header not in self._hosts:
            if len(self._hosts) >= _HOSTS_MAX:
                self._hosts.clear()
            self._hosts[header] = self._judge_host(header)
        return self._hosts[header]

    def _judge_host(self, header: str) -> bool:
        try:
            host = (urlsplit(f"//{header}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if not host or "@" in header or "/" in header:
            return False
        if parse_ip(host) is not None or "." not in host:
            return True
        return host.endswith(".local") or host in self._names

    def is_own_page(self, origin: str, host: str) -> bool:
        """Whether an Origin header is of the page that this node itself serves."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def why_not(self, request: web.BaseRequest) -> tuple[int, str] | None:
        """Status and reason to refuse a request with; None: it is let in."""
        host, origin = request.headers.getall("Host", []), request.headers.get("Origin")
        if len(host) > 1 or (host and not self.knows_host(host[0])):
            return 403, "this machine is not called that; ask by its address"
        if origin is not None and not self.is_own_page(origin, host[0] if host else ""):
            return 403, "pages of other sites may not ask"
        if self.secret is None:
            return None
        said, where = request.headers.get("Authorization"), came_in_on(request)
        wrong = self.secret.why_not(said, request.method, request.raw_path, where, self._clock())
        return (401, f"the lab's secret is needed ({wrong})") if wrong else None


def came_in_on(request: web.BaseRequest) -> str:
    """HOST:PORT of our end of the connection."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(name, tuple):
        return ""
    return str(Address(str(parse_ip(str(name[0])) or name[0]), int(name[1])))


def asker(request: web.BaseRequest) -> str:
    """The address that asks, in canonical text."""
    name = request.transport.get_extra_info("peername") if request.transport else None
    return _canonical(str(name[0])) if isinstance(name, tuple) else ""


@lru_cache(4096)
def _canonical(host: str) -> str:
    return str(parse_ip(host) or host)
