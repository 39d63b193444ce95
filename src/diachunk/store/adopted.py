"""Files outside the store that it knows, reads and never writes: published ones, `--to` directories."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diachunk.digest import Digest, parse_digest
from diachunk.errors import os_errors
from diachunk.store.files import read_hint
from diachunk.store.layout import Layout
from diachunk.store.stamps import Stamp

_RECORD_BYTES_MAX = 1024 * 1024
_PATHS_MAX = 64


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """One such file.

    Attributes:
        ours: diachunk put it there (`--to`) and may replace it; False for the user's own files.
        spoiled: known to be damaged, cut off or unfinished: good for its chunks alone, never for the whole.
    """

    path: Path
    stamp: Stamp
    ours: bool = False
    spoiled: bool = False

    def unchanged(self) -> os.stat_result | None:
        """Its status if it is the file that was stamped, else None."""
        try:
            status = self.path.stat()
        except (OSError, ValueError):
            return None
        return status if self.stamp.matches(status) else None

    def to_object(self) -> dict[str, Any]:
        value = {"path": str(self.path), "ours": self.ours, "stamp": self.stamp.to_object()}
        return {**value, "spoiled": True} if self.spoiled else value

    @classmethod
    def from_object(cls, value: Any) -> AdoptedFile | None:
        try:
            stamp = Stamp.from_object(value["stamp"])
            path = Path(str(value["path"]))
            if stamp is None or not path.is_absolute():
                return None
            return cls(path, stamp, value["ours"] is True, value.get("spoiled") is True)
        except (AttributeError, KeyError, TypeError):
            return None


class Adopted:
    """The records: one small JSON list a digest."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._digests_of: dict[Path, list[Digest]] | None = None

    def get(self, digest: Digest) -> list[AdoptedFile]:
        data = read_hint(self._layout.adopted(digest), _RECORD_BYTES_MAX)
        try:
            values = json.loads(data) if data else []
        except (ValueError, RecursionError):
            return []
        files = (AdoptedFile.from_object(value) for value in values) if isinstance(values, list) else ()
        return [each for each in files if each is not None]

    def put(self, digest: Digest, file: AdoptedFile, *, beside: bool = False, durable: bool = True) -> None:
        """Records a file, in place of what was recorded for its path.

        Args:
            beside: keep that as well. For a file that is about to take its name: until it has, the record that is
                true is the one whose file lies there, and a crash between the two must not make it a stranger's.
            durable: False for what can simply be looked for again.
        """
        if self._digests_of is not None:
            known = self._digests_of.setdefault(file.path, [])
            known += [digest] if digest not in known else []
        others = [
            each
            for each in self.get(digest)
            if each.path != file.path or (beside and not each.stamp.same_file(file.stamp))
        ]
        self._write(digest, [file, *others[: _PATHS_MAX - 1]], durable=durable)

    def drop(self, digest: Digest, path: Path) -> None:
        if self._digests_of is not None:
            self._digests_of[path] = [each for each in self._digests_of.get(path, []) if each != digest]
        self._write(digest, [each for each in self.get(digest) if each.path != path])

    def _write(self, digest: Digest, files: list[AdoptedFile], *, durable: bool = True) -> None:
        target = self._layout.adopted(digest)
        if files:
            data = json.dumps([each.to_object() for each in files], indent=0).encode()
            self._layout.files.replace_text(target, data, durable=durable)
        else:
            if self._layout.files.unlink(target):
                with os_errors("flush", target.parent):
                    self._layout.files.flush_dir(target.parent)

    def digests(self) -> Iterator[Digest]:
        for entry in self._layout.names_in("adopted"):
            try:
                yield parse_digest(entry)
            except ValueError:
                continue

    def by_path(self, path: Path) -> tuple[Digest, AdoptedFile] | None:
        """The record of a path, if there is one; of several, that of the file which lies there.

        Looks through all records once, then keeps count.
        """
        found = [(digest, file) for digest in self.digests_of(path) for file in self.of(digest, path)]
        return min(found, key=lambda each: each[1].unchanged() is None, default=None)

    def digests_of(self, path: Path) -> tuple[Digest, ...]:
        """What was recorded for a path, whether true or not any more."""
        if self._digests_of is None:
            self._digests_of = {}
            for digest in self.digests():
                for file in self.get(digest):
                    self._digests_of.setdefault(file.path, []).append(digest)
        return tuple(self._digests_of.get(path, ()))

    def of(self, digest: Digest, path: Path) -> list[AdoptedFile]:
        """The records of a path with these bytes, that of the file which lies there first."""
        found = [each for each in self.get(digest) if each.path == path]
        return sorted(found, key=lambda each: each.unchanged() is None)
