"""What looking through other programs' caches found, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.verified import Damage
from diachunk.errors import DiachunkError, IntegrityError, StoreError


class CacheState(enum.Enum):
    """What was found of one name in a cache. `wrong`: a program that reads it fails, or takes wrong bytes for right."""

    OK = "ok"
    DAMAGED = "damaged"
    CUT_OFF = "cut off"
    TOO_LONG = "too long"
    DANGLING = "dangling link"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"
    OUTSIDE = "link out of the cache"
    LEFTOVER = "unfinished download"
    LOOSE_REF = "names no snapshot"

    @property
    def wrong(self) -> bool:
        return self in _WRONG


_WRONG = frozenset(
    {
        CacheState.DAMAGED,
        CacheState.CUT_OFF,
        CacheState.TOO_LONG,
        CacheState.DANGLING,
        CacheState.UNREADABLE,
    }
)


@dataclass(frozen=True, slots=True)
class CacheFile:
    """One name in a cache.

    Attributes:
        cache: the kind of the cache ("hub").
        label: for people: "nari-labs/Dia-1.6B-0626/config.json".
        size: bytes that it has; of a leftover, what it takes of the disk.
        known_by: NAME@REVISION of the checkpoint that says what it should be; "" if its own name does.
        shared: what its link leads to, where that lies outside of its directory: others may read that.
        why: says more, or "".
    """

    cache: str
    path: Path
    label: str
    size: int
    state: CacheState
    known_by: str = ""
    damage: tuple[Damage, ...] = ()
    shared: Path | None = None
    why: str = ""
    repaired: bool = False

    @property
    def right(self) -> bool:
        """Whether there is nothing to do about it."""
        return self.repaired or not self.state.wrong


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What was found, and what repairing took.

    Attributes:
        roots: kind and directory of every cache looked at, and whether it is there.
        repair_error: the first thing that kept a file from being repaired.
    """

    files: tuple[CacheFile, ...]
    roots: tuple[tuple[str, Path, bool], ...]
    checked_bytes: int
    elapsed_s: float
    fetched_bytes: int = 0
    reused_bytes: int = 0
    repair_error: DiachunkError | None = None

    @property
    def wrong(self) -> tuple[CacheFile, ...]:
        return tuple(file for file in self.files if not file.right)

    @property
    def ok(self) -> bool:
        """Whether everything that can be known to be right is, or was put right."""
        return not self.wrong

    @property
    def exit_code(self) -> int:
        """0; that of StoreError where something could not be read or written; else that of IntegrityError."""
        unreadable = any(file.state is CacheState.UNREADABLE for file in self.wrong)
        refused = isinstance(self.repair_error, StoreError)
        if self.wrong and (unreadable or refused):
            return StoreError.exit_code
        return IntegrityError.exit_code if self.wrong else 0
