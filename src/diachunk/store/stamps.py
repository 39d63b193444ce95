"""A stamp records what was verified on a file, and the file's identity at that moment.

It proves nothing against someone who can write the store; it says that nothing this machine did since has
touched the file, so that it need not be read again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diachunk.digest import Digest
from diachunk.store.files import Files, read_hint

_STAMP_BYTES_MAX = 64 * 1024
_LISTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identity of a file, and what this machine verified on it.

    Attributes:
        lists: hex ids of the chunk lists (ChunkList.id) whose every chunk was verified.
        blake3, sha256, git: digests that this machine computed over the whole file, or "".
        verified_at: seconds since the epoch; for people.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    lists: tuple[str, ...] = ()
    blake3: str = ""
    sha256: str = ""
    verified_at: float = 0.0
    git: str = ""

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def matches(self, status: os.stat_result) -> bool:
        """Whether the file is the one stamped and untouched since."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
        )

    def same_file(self, other: Stamp) -> bool:
        """Whether two stamps are of one file in one state, whatever was verified on it."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            other.device,
            other.inode,
            other.size,
            other.mtime_ns,
        )

    def proves(self, status: os.stat_result, chunk_list: Digest) -> bool:
        return chunk_list.hex() in self.lists and self.matches(status)

    def with_proofs_of(self, other: Stamp) -> Stamp:
        """This file's identity, with what was verified on another file of the same bytes."""
        return replace(other, device=self.device, inode=self.inode, size=self.size, mtime_ns=self.mtime_ns)

    def adding(
        self, *, chunk_list: Digest | None = None, blake3: str = "", sha256: str = "", git: str = ""
    ) -> Stamp:
        lists = self.lists
        if chunk_list is not None and chunk_list.hex() not in lists:
            lists = (*lists[-_LISTS_MAX + 1 :], chunk_list.hex())
        return replace(
            self,
            lists=lists,
            blake3=blake3 or self.blake3,
            sha256=sha256 or self.sha256,
            git=git or self.git,
            verified_at=time.time(),
        )

    def to_object(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_object(cls, value: object) -> Stamp | None:
        """None for anything that is no stamp: it is then as if there were none."""
        if not isinstance(value, dict):
            return None
        try:
            return cls(
                int(value["device"]),
                int(value["inode"]),
                int(value["size"]),
                int(value["mtime_ns"]),
                tuple(str(each) for each in value["lists"]),
                str(value["blake3"]),
                str(value["sha256"]),
                float(value["verified_at"]),
                str(value.get("git", "")),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


def read_stamp(path: Path) -> Stamp | None:
    data = read_hint(path, _STAMP_BYTES_MAX)
    try:
        return Stamp.from_object(json.loads(data)) if data else None
    except (ValueError, RecursionError):
        return None


def write_stamp(files: Files, path: Path, stamp: Stamp) -> None:
    files.replace_text(path, json.dumps(stamp.to_object()).encode())
