"""What was placed where: `placed/<manifest id>.json` in the store, so that it can be undone and is kept from `gc`."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diachunk.digest import Digest, digest_of, parse_digest
from diachunk.errors import os_errors
from diachunk.store.files import read_hint
from diachunk.store.layout import Layout as StoreLayout
from diachunk.store.stamps import Stamp

_RECORD_BYTES_MAX = 256 * 1024 * 1024
_VERSION = 1
_TEXT_BYTES_MAX = 4096
_LOCK_S = 10.0


class How(enum.Enum):
    """By which kind of link a file shows up in a place."""

    REFLINK = "reflink"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    COPY = "copy"
    POINTER = "pointer"
    TEXT = "text"
    MARK = "mark"
    KEPT = "there already"

    @property
    def is_link(self) -> bool:
        return self in (How.SYMLINK, How.POINTER)


@dataclass(frozen=True, slots=True)
class Put:
    """One name below a place's root.

    Attributes:
        how: KEPT for what was there before and is the user's.
        blake3: of the file's bytes, hex; "" for texts.
        stamp: the file as it was put (or found).
        target: where a link leads; the text of a text (see `told_of`).
        before: the text that was replaced, "" if none was there.
        needs: see places.base.Text.
        readers: see places.base.Spot.
        staging: see places.base.Layout.
    """

    component: str
    where: str
    how: How
    blake3: str = ""
    stamp: Stamp | None = None
    target: str = ""
    before: str = ""
    needs: str = ""
    readers: str = ""
    staging: str = ""

    @property
    def ours(self) -> bool:
        return self.how is not How.KEPT

    def to_object(self) -> dict[str, Any]:
        stamp = self.stamp.to_object() if self.stamp else None
        texts = {name: getattr(self, name) for name in _TEXTS if getattr(self, name)}
        return {
            "component": self.component,
            "where": self.where,
            "how": self.how.value,
            "stamp": stamp,
        } | texts

    @classmethod
    def from_object(cls, value: Any) -> Put:
        """Raises KeyError, TypeError or ValueError for what is none."""
        texts = {name: str(value.get(name, "")) for name in _TEXTS}
        where = str(value["where"])
        if not where or any(part in ("", ".", "..") for part in where.split("/")) or "\0" in where:
            raise ValueError(where)
        if texts["blake3"]:
            parse_digest(texts["blake3"])
        stamp = Stamp.from_object(value.get("stamp"))
        return cls(str(value["component"]), where, How(value["how"]), stamp=stamp, **texts)


_TEXTS = ("blake3", "target", "before", "needs", "readers", "staging")


@dataclass(frozen=True, slots=True)
class Placement:
    """What one checkpoint has in one place.

    Attributes:
        root_id: device and inode of the root when something was last put there; None if nobody noted them.
    """

    kind: str
    root: Path
    puts: tuple[Put, ...]
    root_id: tuple[int, int] | None = None

    def to_object(self) -> dict[str, Any]:
        value = {"kind": self.kind, "root": str(self.root), "puts": [each.to_object() for each in self.puts]}
        return value | ({"root_id": list(self.root_id)} if self.root_id else {})

    @classmethod
    def from_object(cls, value: Any) -> Placement:
        root = Path(str(value["root"]))
        if not root.is_absolute():
            raise ValueError(root)
        puts = tuple(Put.from_object(each) for each in value["puts"])
        match value.get("root_id"):
            case [int(device), int(inode)]:
                return cls(str(value["kind"]), root, puts, (device, inode))
        return cls(str(value["kind"]), root, puts)


class Records:
    """All records of one store. One that cannot be read is as if there were none: what it placed stays."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self.directory = layout.root / "placed"

    def ids(self) -> list[Digest]:
        """The checkpoints of which something is placed."""
        found = []
        for name in self._names():
            with contextlib.suppress(ValueError):
                found.append(parse_digest(name.removesuffix(".json")))
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.directory) if name.endswith(".json"))
        except OSError:
            return []

    def get(self, manifest_id: Digest) -> tuple[Placement, ...]:
        data = read_hint(self.path(manifest_id), _RECORD_BYTES_MAX)
        try:
            value = json.loads(data) if data else None
            if not isinstance(value, dict) or value.get("placed") != _VERSION:
                return ()
            return tuple(Placement.from_object(each) for each in value["places"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ()

    def at(self, root: Path, *, without: Digest | None = None) -> dict[str, Put]:
        """What is recorded of a place, by path, over all checkpoints (but one): what is ours first."""
        found: dict[str, Put] = {}
        for manifest_id in self.ids():
            if manifest_id == without:
                continue
            for placement in self.get(manifest_id):
                for put in placement.puts if placement.root == root else ():
                    if put.where not in found or put.ours:
                        found[put.where] = put
        return found

    def add(self, manifest_id: Digest, kind: str, root: Path, puts: Iterable[Put]) -> None:
        """Records what is about to be put, in place of what was recorded for the same paths. Within `alone`."""
        placements = {each.root: each for each in self.get(manifest_id)}
        known = {each.where: each for each in placements[root].puts} if root in placements else {}
        for put in puts:
            known[put.where] = _merged(known.get(put.where), put)
        placements[root] = Placement(kind, root, tuple(known.values()), _identity(root))
        self._write(manifest_id, placements.values())

    def forget(self, manifest_id: Digest, root: Path, gone: Iterable[str]) -> None:
        """Takes paths out of a record; the record goes with its last one that is ours. Within `alone`."""
        away = frozenset(gone)
        left = []
        for each in self.get(manifest_id):
            puts = tuple(put for put in each.puts if each.root != root or put.where not in away)
            if any(put.ours for put in puts):
                left.append(replace(each, puts=puts))
        self._write(manifest_id, left)

    def _write(self, manifest_id: Digest, placements: Iterable[Placement]) -> None:
        """Within `alone`, which has made the directory."""
        path, objects = self.path(manifest_id), [each.to_object() for each in placements]
        files = self._layout.files
        if objects:
            data = json.dumps({"placed": _VERSION, "places": objects}, indent=0).encode()
            files.replace_text(path, data, durable=True)
        elif files.unlink(path):
            with os_errors("flush", self.directory):
                files.flush_dir(self.directory)

    def path(self, manifest_id: Digest) -> Path:
        """The record's file, whether it is there or not."""
        return self.directory / f"{manifest_id.hex()}.json"

    @contextlib.contextmanager
    def placing(self, clean: Callable[[], None]) -> Iterator[None]:
        """Held while files are placed; whoever is alone at its start first cleans up after those who were killed.

        Locks only save work: where they do nothing, one run may take a temporary file away from another, which
        then makes it anew.
        """
        with self._locked("place.lock") as lock:
            if lock.take(fcntl.LOCK_EX, 0.0):
                clean()
            lock.take(fcntl.LOCK_SH, _LOCK_S)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Held while names are given or taken and recorded: so that another run finds both or neither."""
        with self._locked("record.lock") as lock:
            lock.take(fcntl.LOCK_EX, _LOCK_S)
            yield

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[_Lock]:
        self._layout.files.make_dirs(self.directory, self._layout.root)
        path = self.directory / f".{name}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os_errors("open", path):
            fd = os.open(path, flags, 0o666)
        try:
            with contextlib.suppress(OSError):  # another user's, in a shared store
                os.fchmod(fd, self._layout.files.file_mode)
            yield _Lock(fd)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _Lock:
    fd: int

    def take(self, kind: int, wait_s: float) -> bool:
        """Waits a bounded time; False if it was not to be had, or where there are no locks."""
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
                time.sleep(0.02)
            except OSError:
                return False


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(root)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def told_of(data: bytes) -> str:
    """What a record keeps of a text: itself if it is short, else its digest."""
    if len(data) <= _TEXT_BYTES_MAX:
        return data.decode("utf-8", "surrogateescape")
    return f"blake3:{digest_of(data).hex()}"


def _merged(old: Put | None, new: Put) -> Put:
    """What we put before stays ours when it is found again."""
    if old is None or new.ours or not old.ours:
        return new
    if old.how.is_link or old.how in (How.TEXT, How.MARK):
        return old if old.target == new.target else new
    same = old.stamp is not None and new.stamp is not None and old.stamp.same_file(new.stamp)
    return old if same else new
