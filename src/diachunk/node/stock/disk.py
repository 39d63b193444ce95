"""Looks at a store's directories for what other processes did there. Blocking: runs on the shelf's own thread."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import DiachunkError, StoreError, UsageError
from diachunk.node.stock.holdings import Entry, FileHere, Identity, Key
from diachunk.store.catalog import Ref
from diachunk.store.stamps import read_stamp
from diachunk.store.store import Store

_SETTLED_S = 2.0
"""A directory that was changed less than that ago may change again within the same tick of its file system's clock."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies there of a file. `paths` is empty where nothing does; `proven`: whole, and its stamp says so."""

    key: Key
    paths: tuple[Path, ...] = ()
    identity: Identity = ()
    proven: bool = False
    store: Store | None = None


class Watched:
    """The mtimes of directories, and which of them are new since the last look."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, int]] = {}

    def changed(self, directory: Path) -> bool:
        """Whether something may have happened in it since this was asked last; True when asked first."""
        try:
            status = os.stat(directory)
        except OSError:
            return self._seen.pop(directory, None) is not None
        mark = (status.st_ino, status.st_mtime_ns)
        if self._seen.get(directory) == mark:
            return False
        if time.time() - status.st_mtime > _SETTLED_S:
            self._seen[directory] = mark
        else:
            self._seen[directory] = (0, 0)
        return True


class Disk:
    """A store and those below it, as they are now."""

    def __init__(self, store: Store, lower: Sequence[Store], *, secret: bool) -> None:
        self._stores = (store, *lower)
        self._secret = secret
        self._watched = Watched()

    # --- checkpoints ---------------------------------------------------------------------------------------

    def catalog_changed(self) -> bool:
        """Whether a manifest, a name, or what is private may have come or gone."""
        places = [
            store.root / name for store in self._stores for name in ("manifests", "refs", "private", "pins")
        ]
        for store in self._stores:
            places += _directories(store.root / "refs")
        # All of them are asked, so that each is remembered.
        return sum(self._watched.changed(place) for place in places) > 0

    def manifests(self, known: Mapping[Digest, Entry]) -> dict[Digest, Entry]:
        """Every readable manifest that may be shown; entries that are known are kept."""
        found: dict[Digest, Entry] = {}
        for store in self._stores:
            try:
                ids = store.catalog.ids()
            except StoreError:
                continue
            for manifest_id in ids:
                if manifest_id in found or self.hides(manifest_id):
                    continue
                used_at, path = store.catalog.used_at(manifest_id), store.layout.manifest(manifest_id)
                try:
                    entry = known.get(manifest_id) or Entry(store.catalog.get(manifest_id), used_at, path)
                except (StoreError, UsageError):
                    continue
                entry.used_at, entry.text_path = used_at, path
                found[manifest_id] = entry
        return found

    def hides(self, manifest_id: Digest) -> bool:
        """Whether a checkpoint is private by now, in any store: a fetch marks it right before its first byte."""
        return not self._secret and any(store.catalog.is_private(manifest_id) for store in self._stores)

    def refs(self, shown: Iterable[Digest]) -> list[Ref]:
        """Names of the manifests that may be shown; a lower store's where the upper ones have none."""
        ids = set(shown)
        found: dict[str, Ref] = {}
        for store in self._stores:
            try:
                for ref in store.catalog.refs():
                    found.setdefault(str(ref), ref)
            except StoreError:
                continue
        return [ref for ref in found.values() if ref.manifest_id in ids]

    # --- files ---------------------------------------------------------------------------------------------

    def changed_shelves(self) -> set[int] | None:
        """First bytes of the digests whose files may have changed; None: any."""
        adopted = [self._watched.changed(store.root / "adopted") for store in self._stores]
        shelves = {
            number
            for store in self._stores
            for number in range(256)
            if self._watched.changed(store.root / "blobs" / f"{number:02x}")
        }
        return None if any(adopted) else shelves

    def look_all(self, files: Sequence[FileHere]) -> list[Found]:
        return [self.look(file) for file in files]

    def look(self, file: FileHere) -> Found:
        """Where a file lies now, in the first store that has it whole, else where it grows."""
        best = Found(file.key)
        for store in self._stores:
            try:
                found = self._look_in(store, file)
            except DiachunkError:
                continue
            if found.proven:
                return found
            best = best if best.paths else found
        return best

    def _look_in(self, store: Store, file: FileHere) -> Found:
        digest, chunk_list = file.key
        holding = store.blobs.find(digest, file.size, file.chunks)
        try:
            if holding.path is not None:
                status = os.stat(holding.path)
                known = holding.adopted.stamp if holding.adopted else read_stamp(store.layout.stamp(digest))
                proven = known is not None and known.proves(status, chunk_list)
                identity = identity_of(status) if proven else identity_of(status)[:2]
                return Found(file.key, (holding.path,), identity, proven, store)
            partial = store.layout.partial(digest, chunk_list)
            status = os.stat(partial, follow_symlinks=False)
        except OSError:
            return Found(file.key)
        return Found(file.key, (partial, store.layout.blob(digest)), identity_of(status)[:2], False, store)


def identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _directories(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(each.path) for each in entries if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []
