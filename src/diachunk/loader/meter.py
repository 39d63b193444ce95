"""Counts and seconds of one load, added up by its lanes and read by whoever tells of it."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass


class Stage(enum.Enum):
    """What a lane was doing."""

    READ = "read"
    VERIFY = "verify"
    CAST = "cast"
    COPY = "copy"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Counts:
    """Bytes so far."""

    read: int = 0
    verified: int = 0
    landed: int = 0


class Meter:
    """Added to under a lock: once a chunk, which is a millisecond's work."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._lock = threading.Lock()
        self._read = self._verified = self._landed = 0

    def spent(self, stage: Stage, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds

    def count(self, *, read: int = 0, verified: int = 0, landed: int = 0) -> None:
        with self._lock:
            self._read += read
            self._verified += verified
            self._landed += landed

    @property
    def counts(self) -> Counts:
        with self._lock:
            return Counts(self._read, self._verified, self._landed)
