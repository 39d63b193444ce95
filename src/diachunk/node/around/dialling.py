"""Whom we call that others told us of, and how often (P14): nobody may aim us at a victim. Pure, clock injected."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from diachunk.node.model import Address

K = TypeVar("K")
V = TypeVar("V")

PORTS_DIALLED = range(1024, 65536)
DIALS_A_SECOND = 4
"""Of addresses that others only told us of."""
CALLS_BACK_A_SECOND = 32
"""Of those that spoke to us from there, or to the whole network."""
LEFT_ALONE_S = 60.0
UNANSWERED_MAX = 8
"""Addresses that were no nodes: so many from one informant, and it is not heard; at one host, and it is left alone."""
_NOT_HEARD_S = 600.0
_REMEMBERED_MAX = 4096


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def informant_of(address: Address) -> str:
    """By what an informant is known: its machine. On loopback every machine is this one, so there by its port."""
    return str(address) if is_loopback(address.host) else address.host


def may_be_dialled(address: Address, informant: Address | None, allows: Callable[[str], bool]) -> bool:
    """Whether an address that came from others is called at all: only one that P11 would let ask us (`allows`)."""
    if address.port not in PORTS_DIALLED or not allows(address.host):
        return False
    # Another machine's "127.0.0.1" is not ours.
    return informant is None or not is_loopback(address.host) or is_loopback(informant.host)


@dataclass(slots=True)
class Dialling:
    """Keeps count of calls and of who led us astray."""

    clock: Callable[[], float]
    _recent: dict[bool, deque[float]] = field(default_factory=lambda: {True: deque(), False: deque()})
    _left: dict[Address, float] = field(default_factory=dict)
    _astray: dict[str, dict[Address, float]] = field(default_factory=dict)
    _silent: dict[str, dict[Address, float]] = field(default_factory=dict)

    def may_dial(self, *, hearsay: bool) -> bool:
        """Whether one more address may be called now. `hearsay`: it never spoke for itself."""
        recent, now = self._recent[hearsay], self.clock()
        while recent and now - recent[0] >= 1.0:
            recent.popleft()
        return len(recent) < (DIALS_A_SECOND if hearsay else CALLS_BACK_A_SECOND)

    def dialled(self, *, hearsay: bool) -> None:
        self._recent[hearsay].append(self.clock())

    def left_alone(self, address: Address) -> bool:
        """Whether it lately was no node, or its host has shown too many ports that were none."""
        now = self.clock()
        if now - self._left.get(address, -LEFT_ALONE_S) < LEFT_ALONE_S:
            return True
        return _lately(self._silent.get(address.host, {}), now, LEFT_ALONE_S) >= UNANSWERED_MAX

    def unanswered(self, address: Address, informant: str) -> None:
        """An address that others told us of is no node."""
        now = self.clock()
        _make_room(self._left)
        _make_room(self._astray)
        _make_room(self._silent)
        self._left[address] = now
        _remember(self._silent.setdefault(address.host, {}), address, now)
        if informant:
            _remember(self._astray.setdefault(informant, {}), address, now)

    def answered(self, address: Address) -> None:
        self._left.pop(address, None)

    def hears(self, informant: str) -> bool:
        """Whether what it tells of others is still listened to."""
        return _lately(self._astray.get(informant, {}), self.clock(), _NOT_HEARD_S) < UNANSWERED_MAX


def _make_room(memory: dict[K, V]) -> None:
    if len(memory) >= _REMEMBERED_MAX:
        del memory[next(iter(memory))]


def _remember(memory: dict[Address, float], address: Address, now: float) -> None:
    if len(memory) >= UNANSWERED_MAX and address not in memory:
        memory.pop(min(memory, key=memory.__getitem__))
    memory[address] = now


def _lately(memory: dict[Address, float], now: float, within_s: float) -> int:
    return sum(now - at < within_s for at in memory.values())
