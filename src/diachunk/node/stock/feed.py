"""What a node says it has of one checkpoint, in versions: many listeners share one answer. P5 of docs/protocol.md."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import deque
from dataclasses import dataclass

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.node.model import Want
from diachunk.node.stock.bell import Bell
from diachunk.node.stock.holdings import Entry

_VERSIONS_MAX = 512
TAKING_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Have:
    """What is here of a checkpoint.

    Attributes:
        gained: items since the version asked for; None where that is not remembered.
    """

    epoch: str
    version: int
    bits: Bitmap
    gained: tuple[int, ...] | None


class Feed:
    """Versions of one entry, told at most as often as the limits say. Used on the loop's thread alone.

    Attributes:
        told: rung with each version.
    """

    def __init__(self, entry: Entry, limits: Limits) -> None:
        self.entry = entry
        self.told = Bell()
        self.epoch = secrets.token_hex(8)
        self.version = 0
        self._limits = limits
        self._gained: list[int] = []
        self._log: deque[tuple[int, tuple[int, ...]]] = deque()
        self._logged = 0
        self._want: Want | None = None
        self._said: Want | None = None
        self._answers: dict[int | None, bytes] = {}
        self._told_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def gain(self, item: int) -> None:
        """An item that was not here before is here."""
        self._gained.append(item)
        self._soon(self._limits.have_interval_s)

    def lose(self) -> None:
        """Something may be gone: what listeners know is void."""
        self.epoch = secrets.token_hex(8)
        self._log.clear()
        self._gained.clear()
        self._logged = 0
        self._tell()

    def want(self, want: Want | None) -> None:
        """What is fetched of it now."""
        before, self._want = self._want, want
        if want == self._said and want == before:
            return
        self._soon(TAKING_INTERVAL_S if _same_but_taking(self._said, want) else self._limits.have_interval_s)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _soon(self, interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        when = max(loop.time(), self._told_at + interval_s)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._tell)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._told_at = asyncio.get_running_loop().time()
        self.version += 1
        self._log.append((self.version, tuple(self._gained)))
        self._logged += len(self._gained)
        self._gained.clear()
        # Remembering more than the bitmap itself takes would save nobody anything.
        while len(self._log) > _VERSIONS_MAX or self._logged > max(64, self.entry.bits // 8):
            self._logged -= len(self._log.popleft()[1])
        self._said = self._want
        self._answers.clear()
        self.told.ring()

    def since(self, epoch: str, version: int) -> tuple[int, ...] | None:
        """Items gained after that version; None if that cannot be told."""
        if epoch != self.epoch or version > self.version:
            return None
        if version == self.version:
            return ()
        if not self._log or version + 1 < self._log[0][0]:
            return None
        return tuple(item for number, items in self._log if number > version for item in items)

    def have(self, epoch: str = "", version: int = 0) -> Have:
        bits = Bitmap.from_bytes(self.entry.have.to_bytes(), self.entry.bits)
        return Have(self.epoch, self.version, bits, self.since(epoch, version))

    def answer(self, epoch: str, version: int) -> bytes:
        """The JSON of P5: the same bytes for all who ask from the same version."""
        key = version if epoch == self.epoch and version <= self.version else None
        text = self._answers.get(key)
        if text is None:
            if len(self._answers) >= _VERSIONS_MAX:
                self._answers.clear()
            text = self._answers[key] = self._build(epoch, version)
        return text

    def _build(self, epoch: str, version: int) -> bytes:
        said = self._said
        value: dict[str, object] = {
            "epoch": self.epoch,
            "version": self.version,
            "bits": self.entry.bits,
            "wants": None if said is None else list(said.components),
            "feeds": said is not None and said.feeds,
            "taking": [] if said is None else [list(pair) for pair in said.taking],
        }
        gained = self.since(epoch, version)
        # A digit costs what six bits do.
        if gained is not None and len(gained) * 7 <= max(64, self.entry.bits // 6):
            value["gained"] = list(gained)
        else:
            value["full"] = base64.b64encode(self.entry.have.to_bytes()).decode("ascii")
        return json.dumps(value, separators=(",", ":")).encode()


def _same_but_taking(before: Want | None, after: Want | None) -> bool:
    if before is None or after is None:
        return before is after
    return (before.components, before.feeds) == (after.components, after.feeds)
