"""The contract of a check: a function that looks at a `Patient` and yields `Finding`s.

A check changes nothing, never reads the bytes of large files (that is `verify`'s work), and yields at least one
finding for each thing that it looked at, `Level.OK` included; nothing at all where the question does not arise.
It may block: each group of checks runs on a thread of its own with a deadline (`bounded.examine`). What may take
long because there is much to look at asks a `Budget` and says how far it came.
"""

from __future__ import annotations

import enum
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from diachunk.config import Config
from diachunk.errors import printable, redact


class Level(enum.StrEnum):
    """How bad it is. Only a fault makes `diachunk doctor` exit with anything but 0."""

    FAULT = "fault"
    WARNING = "warning"
    NOTE = "note"
    OK = "ok"


class Area(enum.StrEnum):
    """What a finding is about, in the order in which things are to be mended."""

    SETTINGS = "settings"
    STORE = "store"
    MACHINE = "machine"
    NETWORK = "network"
    CACHES = "caches"

    @property
    def exit_code(self) -> int:
        """The exit code of the errors.py family that a fault here leads to."""
        return _EXIT_CODES[self]


_EXIT_CODES = {Area.SETTINGS: 2, Area.STORE: 6, Area.MACHINE: 6, Area.NETWORK: 5, Area.CACHES: 4}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: one line for a person, without secrets.
        cure: the line for a shell that cures it; what only a person can do stands in it behind a `#`. May be "".
    """

    level: Level
    area: Area
    what: str
    cure: str = ""

    def __post_init__(self) -> None:
        for name in ("what", "cure"):
            line = " ".join(getattr(self, name).splitlines())
            object.__setattr__(self, name, printable(redact(line)))


class Online(enum.Enum):
    """How far the network is asked."""

    OFF = "not at all"
    CONFIGURED = "the origins that are configured"
    ALL = "these, and the Hub"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at.

    Attributes:
        config: the effective settings; None where there are none that work.
        settings: what was found while they were read.
        home: the store's directory, whether there or not; None if there is no place for one.
        origins: what network checks ask, besides proxies: the configured origins.
        targets: checkpoints that the settings want kept here.
        clocks: (host, seconds that it is ahead of this machine), noted by whoever hears of a host's time.
    """

    environment: Mapping[str, str]
    config: Config | None = None
    settings: tuple[Finding, ...] = ()
    home: Path | None = None
    origins: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    online: Online = Online.CONFIGURED
    clocks: list[tuple[str, float]] = field(default_factory=list)


Check: TypeAlias = Callable[[Patient], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that run one after the other on one thread: what hangs for one would hang for all of them.

    Attributes:
        what: what it looks at, for when no answer comes: "the store /data/diachunk".
    """

    area: Area
    what: str
    checks: tuple[Check, ...]
    deadline_s: float = 10.0


class Budget:
    """Time for one check that may find much to look at."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as a shell reads it."""
    return shlex.quote(os.fspath(path))


def as_root(command: str) -> str:
    """A command that needs the rights of an administrator."""
    return command if os.geteuid() == 0 else f"sudo {command}"


def count(number: int, what: str) -> str:
    """ "1 file", "1,612 files"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """Bytes in decimal units: "12.3 kB"."""
    value, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def age(seconds: float) -> str:
    """How long: "40 s", "5 min", "3 h", "12 days"."""
    for unit_s, name in ((86400 * 2, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds // (86400 if name == 'days' else unit_s):.0f} {name}"
    return f"{max(0, seconds):.0f} s"
