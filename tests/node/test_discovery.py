"""mDNS: nodes of one network find each other; what a service says of itself is hearsay; nothing breaks without."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import socket
from collections.abc import Callable, Sequence

import pytest
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceInfo

from diachunk.node.around import discovery
from diachunk.node.around.discovery import SERVICE, Discovery, address_of, own_addresses
from diachunk.node.guard import is_near
from diachunk.node.model import Address

DEADLINE_S = 15.0


def service(port: int | None, *addresses: str) -> AsyncServiceInfo:
    return AsyncServiceInfo(SERVICE, f"x.{SERVICE}", port=port, parsed_addresses=list(addresses))


@pytest.mark.parametrize(
    ("addresses", "port", "called"),
    [
        (["10.0.0.7"], 8420, "10.0.0.7"),
        (["fd00::7", "10.0.0.7"], 8420, "10.0.0.7"),
        (["fe80::7", "fd00::7"], 8420, "fd00::7"),
        (["8.8.8.8"], 8420, ""),
        (["8.8.8.8", "192.168.1.9"], 8420, "192.168.1.9"),
        (["2606:4700::1"], 8420, ""),
        (["127.0.0.1"], 8420, ""),
        (["::1"], 8420, ""),
        (["10.0.0.7"], 22, ""),
        (["10.0.0.7"], 0, ""),
        ([], 8420, ""),
    ],
)
def test_a_service_is_called_at_a_near_address_or_not_at_all(
    addresses: Sequence[str], port: int, called: str
) -> None:
    found = address_of(service(port, *addresses), is_near)
    assert found == (Address(called, port) if called else None)


def make(found: list[tuple[Address, str]], **how: object) -> Discovery:
    settings: dict[str, object] = {"port": None, "browse": True, "secret": False, "allows": is_near, **how}
    return Discovery(
        secrets.token_hex(16),
        secrets.token_hex(8),
        found=lambda address, store: found.append((address, store)),
        **settings,  # type: ignore[arg-type]
    )


async def wait_for(what: Callable[[], object]) -> bool:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not what():
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


def multicast_works() -> bool:
    if not own_addresses():
        return False
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", 0))
            membership = socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0")
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            one.settimeout(1.0)
            two.sendto(b"x", ("224.0.0.251", one.getsockname()[1]))
            return one.recv(1) == b"x"
    except OSError:
        return False


def test_two_nodes_of_one_network_find_each_other() -> None:
    if not multicast_works():
        pytest.skip("no multicast here")

    async def meet() -> None:
        heard: list[tuple[Address, str]] = []
        sharing = make([], port=8429)
        looking = make(heard)
        try:
            sharing.start()
            looking.start()
            assert await wait_for(lambda: heard)
            address, store = heard[0]
            assert (address.port, store) == (8429, sharing._store)
            assert address.host in own_addresses()
        finally:
            await sharing.close()
            await looking.close()

    asyncio.run(meet())


@pytest.mark.parametrize("error", [OSError("no such device"), ZeroconfError("no interface"), ValueError("x")])
def test_nothing_breaks_and_nothing_is_said_where_multicast_is_blocked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tried: list[object] = []

    def refuse(**options: object) -> None:
        tried.append(options)
        raise error

    monkeypatch.setattr(discovery, "AsyncZeroconf", refuse)
    monkeypatch.setattr(discovery, "own_addresses", lambda: ["10.0.0.7"])
    caplog.set_level(logging.INFO)

    async def live() -> None:
        one = make([], port=8429)
        one.start()
        assert await wait_for(lambda: tried)
        await asyncio.sleep(0)
        assert one._task is not None
        assert not one._task.done()
        await one.close()

    asyncio.run(live())
    assert not caplog.records


def test_without_any_interface_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "own_addresses", list)
    monkeypatch.setattr(discovery, "AsyncZeroconf", lambda **options: pytest.fail("opened"))

    async def live() -> None:
        one = make([], port=8429)
        one.start()
        await asyncio.sleep(0.05)
        await one.close()

    asyncio.run(live())


def test_after_the_network_changed_it_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["10.0.0.7"]
    opened: list[object] = []

    def refuse(**options: object) -> None:
        opened.append(list(addresses))
        raise OSError("not now")

    monkeypatch.setattr(discovery, "AsyncZeroconf", refuse)
    monkeypatch.setattr(discovery, "own_addresses", lambda: list(addresses))
    monkeypatch.setattr(discovery, "_INTERFACES_S", 0.02)

    async def live() -> None:
        one = make([])
        one.start()
        assert await wait_for(lambda: opened)
        addresses[:] = ["192.168.1.4"]
        assert await wait_for(lambda: ["192.168.1.4"] in opened)
        await one.close()

    asyncio.run(live())


@pytest.mark.parametrize("turns", range(6))
def test_one_that_is_closed_before_it_runs_says_nothing(turns: int) -> None:
    """A fetch that is over at once must not end in a stack trace."""
    said: list[dict[str, object]] = []

    async def begin_and_end() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        one = make([], port=8420)
        one.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.close()
        await asyncio.sleep(0.05)
        gc.collect()

    asyncio.run(begin_and_end())
    assert not said
