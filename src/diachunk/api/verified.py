"""What verifying found, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import DiachunkError, IntegrityError, StoreError
from diachunk.transfer.assemble import Report


class State(enum.Enum):
    """What verifying found of one file."""

    OK = "ok"
    DAMAGED = "damaged"
    CUT_OFF = "cut off"
    TOO_LONG = "too long"
    MISSING = "missing"
    UNFINISHED = "unfinished"
    MISLINKED = "linked elsewhere"


@dataclass(frozen=True, slots=True)
class Damage:
    """One chunk whose bytes are wrong: [offset, offset + size) of its file, and the tensors it touches.

    Attributes:
        chunk: its number in the file; `digest`: what its BLAKE3 should be.
        tensors: names as far as the file's header tells; of a PyTorch file, its storages.
    """

    chunk: int
    offset: int
    size: int
    digest: Digest
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file. `location` is what was read, None if nothing was there; `why` says more, or is "".

    `unreadable`: the disk or permissions kept bytes from being read, so that nobody knows whether they are wrong.
    """

    checkpoint: str
    component: str
    path: str
    size: int
    location: Path | None
    state: State
    damage: tuple[Damage, ...] = ()
    repaired: bool = False
    why: str = ""
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verifying found, file by file, and what repairing took.

    Attributes:
        files: all that were looked at, right ones, too; what is wrong of one is its `damage`.
        checked_bytes: read and hashed, over all files, in `elapsed_s` seconds.
        repair: what was fetched to mend it; None if nothing was.
        repair_error: why not all could be mended.
    """

    files: tuple[FileReport, ...]
    checked_bytes: int
    elapsed_s: float
    repair: Report | None = None
    repair_error: DiachunkError | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is right, or was put right."""
        return all(file.state is State.OK or file.repaired for file in self.files)

    @property
    def exit_code(self) -> int:
        """0; or that of IntegrityError; or of StoreError where a file that is not right could not be read."""
        wrong = [file for file in self.files if file.state is not State.OK and not file.repaired]
        if any(file.unreadable for file in wrong):
            return StoreError.exit_code
        return IntegrityError.exit_code if wrong else 0
