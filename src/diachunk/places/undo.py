"""Takes away what was placed, as far as it is still exactly that. All else stays, and is named."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import DiachunkError
from diachunk.manifest import ChunkList, FileEntry
from diachunk.places.base import names_in, walk_files
from diachunk.places.judge import TEXT_BYTES_MAX, parent
from diachunk.places.links import CannotLink, make
from diachunk.places.proof import Held
from diachunk.places.records import How, Placement, Put, Records, told_of
from diachunk.places.tree import Found, Tree
from diachunk.store.files import Files
from diachunk.store.store import Store

_ORDER = (
    frozenset({How.TEXT}),
    frozenset({How.POINTER}),
    frozenset({How.SYMLINK, How.HARDLINK, How.REFLINK, How.COPY}),
)


@dataclass(slots=True)
class Undone:
    """What was taken away, and what was left with the reason why."""

    removed: list[Path] = field(default_factory=list)
    left: list[tuple[Path, str]] = field(default_factory=list)


class Undoer:
    """One checkpoint's record of one place."""

    def __init__(self, store: Store, manifest_id: Digest, placement: Placement) -> None:
        self._records = Records(store.layout)
        self._id = manifest_id
        self._placement = placement
        self._store = store
        self._files = Files()
        self._tree = Tree(placement.root, self._files, store.layout.store_id)
        self._readers: dict[str, dict[str, str]] = {}
        self.undone = Undone()

    def clean(self) -> None:
        for head in sorted({put.staging or parent(put.where) for put in self._placement.puts}):
            self._tree.sweep(head)

    def undo(self, chosen: Callable[[Put], bool]) -> Undone:
        """Takes away the puts that are chosen: refs first, then what points at files, then the files.

        Raises:
            StoreError: the disk refused.
        """
        with self._records.alone():
            self._undo([put for put in self._placement.puts if chosen(put)])
        return self.undone

    def undo_if(self, is_so: Callable[[], bool]) -> bool:
        """All of it, if that is so once nobody else places or undoes. Returns whether it was.

        Raises:
            StoreError: the disk refused.
        """
        with self._records.alone():
            if not is_so():
                return False
            self._undo(self._placement.puts)
        return True

    def _undo(self, puts: Sequence[Put]) -> None:
        others = self._records.at(self._placement.root, without=self._id)
        gone = [put.where for put in puts if not put.ours]
        for group in _ORDER:
            gone += [put.where for put in puts if put.how in group and self._take(put, others)]
            self._tree.flush()
        for where in sorted(gone, key=lambda each: -each.count("/")):
            self._tree.remove_empty(parent(where))
        gone += [put.where for put in puts if put.how is How.MARK and self._take_mark(put)]
        self._tree.flush()
        self._records.forget(self._id, self._placement.root, gone)

    def _take(self, put: Put, others: Mapping[str, Put]) -> bool:
        """Whether the record of it can go: it was taken away, is gone, or is not ours any more."""
        found = self._tree.look(put.where)
        if found is None:
            self._tree.found(put.where)
            return True
        other = others.get(put.where)
        if other is not None and other.blake3 == put.blake3 and (put.blake3 or other.target == put.target):
            return self._leave(put, "another placed checkpoint needs it too")
        if not self._is_still(put, found):
            if put.before and self._is_still(replace(put, target=put.before), found):
                self._tree.found(put.where)  # a run that was stopped put it back already
                return True
            return self._leave(put, "it was changed since")
        if put.how is How.TEXT and put.before and put.needs and self._tree.look(put.needs) is not None:
            before = put.before.encode("utf-8", "surrogateescape")
            staging = put.staging or parent(put.where)
            self._tree.put(put.where, staging, self._tree.prepare_text(staging, before))
            self.undone.removed.append(self._tree.path(put.where))
            return True
        reader = self._reader_of(put)
        if not reader:
            return self._remove(put)
        needs_store = put.how is How.SYMLINK and Path(put.target).is_relative_to(self._store.root)
        own = needs_store and self._make_own(put)
        self._leave(put, f"{reader} needs it too{'; it is a file of its own now' if own else ''}")
        # A link into the store would lead nowhere once its file is collected: the record keeps that.
        return own or not needs_store

    def _make_own(self, put: Put) -> bool:
        """Makes a file of a link into the store, which may then go; False where that cannot be done."""
        if put.stamp is None:
            return False
        file = FileEntry(put.where, put.stamp.size, bytes.fromhex(put.blake3), ChunkList.of(()))
        held, staging = Held(file, Path(put.target), put.stamp), put.staging or parent(put.where)
        for how in (How.REFLINK, How.HARDLINK, How.COPY):
            temporary = self._tree.temporary()
            try:
                with self._tree.directory(staging) as fd:
                    make(held, fd, temporary, how, self._files, lambda size: None)
                self._tree.put(put.where, staging, temporary)
                return True
            except (CannotLink, DiachunkError, OSError):
                self._tree.discard(staging, temporary)
        return False

    def _take_mark(self, put: Put) -> bool:
        """What only marks the directory goes with the last of it."""
        found = self._tree.look(put.where)
        if found is None:
            self._tree.found(put.where)
        elif self._is_still(put, found):
            if names_in(self._tree.path(parent(put.where))) != [posixpath.basename(put.where)]:
                return True
            self._remove(put)
        return True

    def _remove(self, put: Put) -> bool:
        self._tree.remove(put.where)
        self.undone.removed.append(self._tree.path(put.where))
        return True

    def _leave(self, put: Put, why: str) -> bool:
        self.undone.left.append((self._tree.path(put.where), why))
        return True

    def _is_still(self, put: Put, found: Found) -> bool:
        if put.how.is_link:
            return found.target == put.target
        if put.how in (How.TEXT, How.MARK):
            data = self._tree.read_text(put.where, TEXT_BYTES_MAX)
            return data is not None and told_of(data) == put.target
        return found.is_file and put.stamp is not None and put.stamp.matches(found.status)

    def _reader_of(self, put: Put) -> str:
        """A link, none of ours any more, that leads to this file; "" if there is none."""
        if not put.readers:
            return ""
        if put.readers not in self._readers:
            self._readers[put.readers] = dict(_links(self._tree.path(put.readers)))
        return self._readers[put.readers].get(str(self._tree.path(put.where)), "")


def _links(directory: Path) -> Iterator[tuple[str, str]]:
    """(where it leads, link) for every link below a directory."""
    for path in walk_files(directory):
        try:
            yield os.path.normpath(path.parent / os.readlink(path)), str(path)
        except OSError:
            continue
