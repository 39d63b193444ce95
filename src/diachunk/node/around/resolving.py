"""Peers as the user names them, HOST[:PORT] and dns:NAME[:PORT], looked up again for as long as it matters."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diachunk.errors import UsageError
from diachunk.node.around.roster import How, Roster
from diachunk.node.model import Address

_LOOK_UP_S = 5.0
_RECORDS_MAX = 1024
_AGAIN_S = (1.0, 2.0)
"""Between two tries of a name that leads nowhere yet: a peer that appears is to be used within 3 s."""
_REFRESH_S = (10.0, 30.0)
_DNS = "dns:"

LookUp = Callable[[str, int], Awaitable[Sequence[Address]]]


@dataclass(slots=True)
class Named:
    """One peer as the user wrote it.

    Attributes:
        text: as written.
        trouble: why it leads nowhere, or "".
        looked_up: whether that was tried.
    """

    text: str
    address: Address
    every_record: bool
    trouble: str = ""
    looked_up: bool = False

    @classmethod
    def parse(cls, text: str) -> Named:
        """Raises UsageError unless `text` is HOST[:PORT] or dns:NAME[:PORT]."""
        every_record = text.startswith(_DNS)
        address = Address.parse(text.removeprefix(_DNS))
        if every_record and _is_ip(address.host):
            raise UsageError(f"peer {text!r:.80}: an address has no records", hint="leave out dns:")
        return cls(text, address, every_record)


async def look_up(host: str, port: int) -> list[Address]:
    """Every address of a name, those of IPv4 first.

    Raises:
        OSError: there is none, or the answer takes too long.
    """
    if _is_ip(host):
        return [Address(host, port)]
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def done(found: list[Any] | OSError) -> None:
        if future.done():
            return
        if isinstance(found, OSError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def ask() -> None:
        result: list[Any] | OSError
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            result = error
        except ValueError as error:  # no name at all: a label that IDNA does not know
            result = OSError(str(error))
        try:
            loop.call_soon_threadsafe(done, result)
        except RuntimeError:
            return  # the loop is closed: nobody waits

    # A thread that nobody waits for: getaddrinfo cannot be ended, and a pool's threads hold up the exit.
    threading.Thread(target=ask, name="diachunk-lookup", daemon=True).start()
    async with asyncio.timeout(_LOOK_UP_S):
        found = await future
    hosts = sorted((entry[0] == socket.AF_INET6, str(entry[4][0])) for entry in found[:_RECORDS_MAX])
    return [Address(host, port) for host in dict.fromkeys(host for _, host in hosts)]


class Resolving:
    """Keeps the roster told of where the user's names lead."""

    def __init__(
        self,
        names: Sequence[str],
        roster: Roster,
        reached: Callable[[Address], bool],
        look_up: LookUp = look_up,
    ) -> None:
        """Args:
        reached: whether a node answers at an address.

        Raises:
            UsageError: a name that is none.
        """
        self.named = [Named.parse(text) for text in dict.fromkeys(names)]
        self._roster = roster
        self._reached = reached
        self._look_up = look_up
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for each in self.named:
            follow = self._follow_records(each) if each.every_record else self._follow_name(each)
            self._tasks.append(asyncio.get_running_loop().create_task(follow, name=f"diachunk-{each.text}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def settled(self) -> bool:
        """Whether every name was looked up at least once."""
        return all(each.looked_up for each in self.named)

    async def _addresses(self, named: Named) -> Sequence[Address]:
        try:
            found = await self._look_up(*named.address)
        except TimeoutError:
            named.trouble = "the name is not answered for"
        except OSError:
            named.trouble = "no such host"
        else:
            named.trouble = "" if found else "no such host"
            return found
        finally:
            named.looked_up = True
        return []

    async def _follow_name(self, named: Named) -> None:
        """One machine: its addresses are tried in turn, until one of them answers."""
        if _is_ip(named.address.host):
            self._roster.note(named.address, How.NAMED)
            named.looked_up = True
            return
        noted: Address | None = None
        turn = 0
        while True:
            if noted is None or not self._reached(noted):
                found = await self._addresses(named)
                if found:
                    following = found[turn % len(found)]
                    turn += 1
                    if noted is not None and following != noted and not self._reached(noted):
                        self._roster.forget(noted)
                    noted = following
                    self._roster.note(noted, How.NAMED)
            settled = noted is not None and self._reached(noted)
            await asyncio.sleep(random.uniform(*(_REFRESH_S if settled else _AGAIN_S)))

    async def _follow_records(self, named: Named) -> None:
        """Every record is a machine. One that leaves the records is forgotten in time, if it does not answer."""
        while True:
            found = await self._addresses(named)
            for address in found:
                self._roster.note(address, How.DNS)
            await asyncio.sleep(random.uniform(*(_REFRESH_S if found else _AGAIN_S)))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
