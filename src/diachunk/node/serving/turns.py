"""Whose turn it is to be sent bytes: slots, a fair queue, a cap. Pure: the clock is given. P17 of docs/protocol.md."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

from diachunk.limits import KiB, MiB

WAITING_MAX = 256
WAITING_PER_ADDRESS_MAX = 2
SLOW_BPS = 64 * KiB
"""Who takes less than that in a second holds up others: a slot is not for him."""
_TURN_BYTES = 8 * MiB
_TURN_BYTES_MIN = 256 * KiB
_HALF_LIFE_S = 5.0
_REMEMBERED_MAX = 4096


class Stage(enum.Enum):
    """Where an upload stands."""

    WAITING = "in the queue"
    ACTIVE = "has a slot"
    PARKED = "gave its slot away, because its reader does not read"
    OVER = "done"


@dataclass(eq=False, slots=True)
class Turn:
    """One upload. `sent_bytes` counts what it was sent since it last got a slot, `ahead_bytes` what its address was
    charged for before it was sent.
    """

    address: str
    order: int
    stage: Stage = Stage.WAITING
    sent_bytes: int = 0
    ahead_bytes: int = 0


class Turns:
    """At most `slots` uploads are active; those that wait follow by how little their address got lately."""

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        self.slots = slots
        self._clock = clock
        self._waiting: list[Turn] = []
        self._parked = 0
        self._active = 0
        self._order = 0
        self._lately: dict[str, tuple[float, float]] = {}

    @property
    def active(self) -> int:
        return self._active

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def parked(self) -> int:
        return self._parked

    def ask(self, address: str) -> Turn | None:
        """A place in the queue; None: it is full, or this address has enough of it."""
        mine = sum(1 for each in self._waiting if each.address == address)
        if len(self._waiting) >= WAITING_MAX or mine >= WAITING_PER_ADDRESS_MAX:
            return None
        self._order += 1
        turn = Turn(address, self._order)
        self._waiting.append(turn)
        return turn

    def grant(self) -> list[Turn]:
        """Hands out the free slots; returns who got one."""
        granted: list[Turn] = []
        while self._active < self.slots and self._waiting:
            turn = min(self._waiting, key=lambda each: (self.lately(each.address), each.order))
            self._waiting.remove(turn)
            turn.stage, turn.sent_bytes = Stage.ACTIVE, 0
            self._active += 1
            granted.append(turn)
            # Counted ahead: of two that got nothing yet, one address must not take all the slots of a moment.
            turn.ahead_bytes += _TURN_BYTES_MIN
            self._count(turn.address, _TURN_BYTES_MIN)
        return granted

    def sent(self, turn: Turn, size_bytes: int) -> None:
        turn.sent_bytes += size_bytes
        counted = min(turn.ahead_bytes, size_bytes)
        turn.ahead_bytes -= counted
        self._count(turn.address, size_bytes - counted)

    def is_up(self, turn: Turn) -> bool:
        """Whether it had its share, and others wait. With many that wait shares are small: nobody waits long."""
        share = max(_TURN_BYTES_MIN, _TURN_BYTES * 8 // (8 + len(self._waiting)))
        return bool(self._waiting) and turn.sent_bytes >= share

    def park(self, turn: Turn) -> None:
        """Its reader does not read: the slot is for others, until it asks again by `rejoin`."""
        if turn.stage is Stage.ACTIVE:
            turn.stage = Stage.PARKED
            self._active -= 1
            self._parked += 1

    def rejoin(self, turn: Turn) -> None:
        """Back into the queue, behind those that got less. Never refused: it was let in before."""
        self._leave(turn)
        self._order += 1
        turn.stage, turn.order = Stage.WAITING, self._order
        self._waiting.append(turn)

    def end(self, turn: Turn) -> None:
        self._leave(turn)
        turn.stage = Stage.OVER

    def _leave(self, turn: Turn) -> None:
        if turn.stage is Stage.ACTIVE:
            self._active -= 1
        elif turn.stage is Stage.PARKED:
            self._parked -= 1
        elif turn.stage is Stage.WAITING:
            self._waiting.remove(turn)

    # --- who got how much lately ---------------------------------------------------------------------------

    def lately(self, address: str) -> float:
        """Bytes, halved every few seconds."""
        bytes_, at = self._lately.get(address, (0.0, 0.0))
        return bytes_ * float(0.5 ** ((self._clock() - at) / _HALF_LIFE_S))

    def rates(self) -> dict[str, float]:
        """Bytes a second by address, over the last few seconds; those who got next to nothing are left out."""
        rates = {address: self.lately(address) * math.log(2) / _HALF_LIFE_S for address in self._lately}
        return {address: rate for address, rate in rates.items() if rate >= KiB}

    def _count(self, address: str, size_bytes: int) -> None:
        if address not in self._lately and len(self._lately) >= _REMEMBERED_MAX:
            self._forget()
        self._lately[address] = (self.lately(address) + size_bytes, self._clock())

    def _forget(self) -> None:
        """Those whose last bytes are longest ago."""
        oldest = sorted(self._lately, key=lambda address: self._lately[address][1])
        for address in oldest[: _REMEMBERED_MAX // 2]:
            del self._lately[address]


class Bucket:
    """A rate over all that take from it; one second's worth may come at once at most a quarter."""

    def __init__(self, rate_bps: int, clock: Callable[[], float]) -> None:
        self._rate_bps = rate_bps
        self._clock = clock
        self._free_at = clock()

    def take(self, size_bytes: int) -> float:
        """Takes so many bytes; returns for how many seconds to wait before they are sent."""
        now = self._clock()
        self._free_at = max(self._free_at, now - 0.25) + size_bytes / self._rate_bps
        return max(0.0, self._free_at - now)
