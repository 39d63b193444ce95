"""Finds nodes on this network by itself: mDNS (RFC 6762, 6763). What is said there is hearsay like any other.

Where multicast is blocked, or there is no network, nothing is found, and that is all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

import ifaddr
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from diachunk.node.model import Address
from diachunk.version import __version__

SERVICE = "_diachunk._tcp.local."
_SERVICES_MAX = 256
_ASK_MS = 3000
_REFRESH_S = 30.0
_INTERFACES_S = 30.0
_END_S = 2.0
_LOG = logging.getLogger("diachunk.node")

Found = Callable[[Address, str], None]
"""(address, store id): a node says that it is there."""


class Discovery:
    """Registers this node, and tells of others. On one loop. Nothing it meets is an error to anybody."""

    def __init__(
        self,
        node: str,
        store: str,
        *,
        port: int | None,
        browse: bool,
        secret: bool,
        found: Found,
        allows: Callable[[str], bool],
    ) -> None:
        """Args:
        port: where this node listens; None: it is not to be found.
        allows: whether an address may be called at all (P11); others are passed over.
        """
        self._node = node
        self._store = store
        self._port = port
        self._browse = browse
        self._secret = secret
        self._found = found
        self._allows = allows
        self._services: dict[str, Address | None] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._zeroconf: AsyncZeroconf | None = None
        self._starting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._browse or self._port is not None:
            self._task = asyncio.get_running_loop().create_task(self._live(), name="diachunk-mdns")

    async def close(self) -> None:
        tasks = [task for task in (self._task, *self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _live(self) -> None:
        """Starts over when this machine's addresses change: sockets belong to interfaces."""
        while True:
            addresses = own_addresses()
            try:
                await self._try_to_begin(addresses)
                while own_addresses() == addresses:
                    await asyncio.sleep(_INTERFACES_S)
                    self._refresh()
            finally:
                await self._end()

    async def _try_to_begin(self, addresses: list[str]) -> None:
        try:
            await self._begin(addresses)
        except (TimeoutError, OSError, ZeroconfError, ValueError) as error:
            _LOG.debug("no mDNS here: %s", error)

    async def _begin(self, addresses: list[str]) -> None:
        if not addresses:
            return
        self._zeroconf = _open()
        # Whole, also when this is cut short: one that is closed while it opens its sockets leaves them open, and its
        # browser complains on stderr, in the middle of somebody's progress.
        self._starting = asyncio.ensure_future(self._zeroconf.zeroconf.async_wait_for_start())
        self._starting.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # seen, whoever waits
        await asyncio.shield(self._starting)
        if self._browse:
            AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])
        if self._port is not None:
            await self._zeroconf.async_register_service(self._info(addresses), cooperating_responders=True)

    async def _end(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        self._services.clear()
        if zeroconf is not None:
            with contextlib.suppress(OSError, ZeroconfError, TimeoutError):
                async with asyncio.timeout(_END_S):
                    if self._starting is not None:
                        await asyncio.wait({self._starting})
                    await zeroconf.async_close()

    def _info(self, addresses: list[str]) -> AsyncServiceInfo:
        name = self._node[:16]
        return AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=self._port or 0,
            parsed_addresses=addresses,
            server=f"diachunk-{name}.local.",
            properties={
                "v": __version__,
                "node": self._node,
                "store": self._store,
                "secret": "1" if self._secret else "0",
            },
        )

    # --- others --------------------------------------------------------------------------------------------

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._services.pop(name, None)
            return
        if name.startswith(self._node[:16]) or len(self._asking) >= _SERVICES_MAX:
            return
        if name not in self._services and len(self._services) >= _SERVICES_MAX:
            return
        self._services.setdefault(name, None)
        task = asyncio.get_running_loop().create_task(self._ask(zeroconf, name))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, name)
            if not await info.async_request(zeroconf, _ASK_MS) or name not in self._services:
                return
            address = address_of(info, self._allows)
            if address is not None:
                self._services[name] = address
                self._found(address, _text(info.properties.get(b"store")))
        except (OSError, ZeroconfError, ValueError) as error:
            _LOG.debug("mDNS: %s", error)

    def _refresh(self) -> None:
        """Whoever is still announced stays known."""
        for address in self._services.values():
            if address is not None:
                self._found(address, "")


def address_of(info: AsyncServiceInfo, allows: Callable[[str], bool]) -> Address | None:
    """Where a service is to be called: of its addresses one that may be, IPv4 before IPv6, link-local ones last."""

    def order(host: str) -> tuple[bool, bool, bool]:
        address = ipaddress.ip_address(host.partition("%")[0])
        return address.is_loopback, address.version == 6 and address.is_link_local, address.version == 6

    # Another machine's loopback address is not ours; one of this machine announces its others as well.
    hosts = [host for host in info.parsed_scoped_addresses()[:64] if allows(host)]
    hosts = [host for host in hosts if not ipaddress.ip_address(host.partition("%")[0]).is_loopback]
    if not hosts or not info.port or not 1024 <= info.port < 65536:
        return None
    return Address(min(hosts, key=order), info.port)


def own_addresses() -> list[str]:
    """This machine's addresses, but for those of loopback."""
    found: list[str] = []
    try:
        adapters: Any = ifaddr.get_adapters()
    except OSError:
        return []
    for adapter in adapters:
        for each in adapter.ips:
            text = each.ip if isinstance(each.ip, str) else each.ip[0]
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if not address.is_loopback and not address.is_unspecified:
                found.append(str(address))
    return sorted(set(found))


def _open() -> AsyncZeroconf:
    """Raises OSError where there is no multicast at all."""
    try:
        return AsyncZeroconf(ip_version=IPVersion.All)
    except OSError:
        return AsyncZeroconf(ip_version=IPVersion.V4Only)


def _text(value: bytes | None) -> str:
    return (value or b"")[:128].decode("ascii", "replace")
