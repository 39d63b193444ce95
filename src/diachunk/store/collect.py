"""Garbage collection. Roots: refs, pins, and whatever a running fetch may need. All else is removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.digest import Digest, parse_digest
from diachunk.errors import from_os_error
from diachunk.manifest import Manifest
from diachunk.store.drafts import needed_blob
from diachunk.store.files import read_hint
from diachunk.store.locks import held_by_another
from diachunk.store.store import Store

DRAFT_GRACE_S = 7 * 86400.0
"""What is left of a recipe's fetch that never came to its end is kept this long: files of gigabytes, often."""
_TOLD_MAX = 8
GRACE_S = 86400.0
"""A manifest used within this time is never collected: a fetch may be running that has no ref yet."""


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that goes: a checkpoint, blob or partial; `size_bytes` of disk."""

    kind: str
    label: str
    size_bytes: int


@dataclass(slots=True)
class Collected:
    """What a collection removed (or, dry, would).

    Attributes:
        kept_bytes: of disk, that what is left in the store takes.
        notes: what a person should know beside that, such as what keeps it from its bound.
        places: where nothing is to be seen any more of what was placed, and what that means.
    """

    removed: list[Removed] = field(default_factory=list)
    kept_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        return sum(each.size_bytes for each in self.removed)


class Collector:
    """One collection over one store."""

    def __init__(
        self,
        store: Store,
        *,
        pinned: Iterable[Digest] = (),
        not_placed: Iterable[Digest] = (),
        dry_run: bool = False,
    ) -> None:
        """Args:
        not_placed: checkpoints that are in no place any more, whatever is recorded of them.
        """
        self._store = store
        self._not_placed = frozenset(not_placed)
        self._pinned = frozenset(pinned)
        self._dry_run = dry_run
        self._now = time.time()
        self.collected = Collected()

    def collect(
        self,
        *,
        removing: Iterable[Manifest] = (),
        older_than_s: float | None = None,
        max_bytes: int | None = None,
    ) -> Collected:
        """Removes what no root needs; then, if asked, checkpoints least recently used first.

        Args:
            removing: checkpoints to forget before that, names and pins included.
            older_than_s: also checkpoints that have a name but were not used for this long.
            max_bytes: also as many as it takes until the blobs fit into this.

        Raises:
            StoreError: the disk refused, or a manifest cannot be read: then nobody knows what it needs.
        """
        with self._store.layout.guard(sweeping=True):
            for manifest in removing:
                forget(self._store, manifest)
            return self._collect(older_than_s, max_bytes)

    def _collect(self, older_than_s: float | None, max_bytes: int | None) -> Collected:
        catalog = self._store.catalog
        kept = {manifest_id: catalog.get(manifest_id) for manifest_id in catalog.ids()}
        self._pinned |= catalog.placed() - self._not_placed
        roots = {ref.manifest_id for ref in catalog.refs()} | catalog.pins() | self._pinned
        for manifest in list(kept.values()):
            age = self._now - catalog.used_at(manifest.id)
            unnamed = manifest.id not in roots and age > GRACE_S
            stale = older_than_s is not None and age > older_than_s and manifest.id not in self._pinned
            if unnamed or stale:
                self._drop(kept.pop(manifest.id))
        if max_bytes is not None:
            self._fit(kept, max_bytes)
        try:
            self._sweep(kept.values())
        except OSError as error:
            raise from_os_error(error, "collect garbage in", self._store.root) from error
        return self.collected

    def _fit(self, kept: dict[Digest, Manifest], max_bytes: int) -> None:
        """Drops checkpoints, least recently used first, until what the others need fits."""
        by_use = sorted(kept, key=self._store.catalog.used_at)
        for manifest_id in by_use:
            if self._needs(kept.values()) <= max_bytes:
                return
            if manifest_id not in self._pinned:
                self._drop(kept.pop(manifest_id))
        over = self._needs(kept.values())
        if over > max_bytes:
            why = "; ".join(self._kept_by(each) for each in list(kept.values())[:_TOLD_MAX])
            more = f"; and {len(kept) - _TOLD_MAX} more" if len(kept) > _TOLD_MAX else ""
            self.collected.notes.append(f"{over:,} bytes are kept all the same: {why}{more}")

    def _needs(self, kept: Iterable[Manifest]) -> int:
        needed = {file.blake3 for manifest in kept for _, file in manifest.walk()}
        return sum(_disk_bytes(self._store.layout.blob(digest)) for digest in needed)

    def _kept_by(self, manifest: Manifest) -> str:
        if manifest.id in self._store.catalog.placed():
            return f"{manifest.ref} is shown to programs: diachunk place {manifest.ref} --undo"
        return f"{manifest.ref} is pinned in the settings"

    def _drop(self, manifest: Manifest) -> None:
        self._note("checkpoint", f"{manifest.ref} ({manifest.hex_id[:16]})", 0)
        if not self._dry_run:
            forget(self._store, manifest)

    def _sweep(self, kept: Iterable[Manifest]) -> None:
        """Removes blobs and partials that no kept manifest names, and leftovers."""
        needed = {file.blake3 for manifest in kept for _, file in manifest.walk()} | self._sweep_drafts()
        blobs = self._store.root / "blobs"
        for directory in sorted(each for each in blobs.iterdir() if each.is_dir() and len(each.name) == 2):
            for path in sorted(directory.iterdir()):
                self._consider(path, needed)
        nested = [
            each
            for name in ("refs", "snapshots", "seen")
            for each in (self._store.root / name).rglob(".*.tmp")
        ]
        for path in sorted({*self._store.root.glob(".*.tmp"), *self._store.root.glob("*/.*.tmp"), *nested}):
            if self._is_old(path):
                self._remove("leftover", path)
        for digest in self._store.blobs.adopted.digests():
            for file in self._store.blobs.adopted.get(digest):
                if not self._dry_run and not _may_be_there(file.path):
                    self._store.blobs.adopted.drop(digest, file.path)

    def _sweep_drafts(self) -> set[Digest]:
        """Removes what is left of recipes' fetches of long ago; returns the blobs that the others need."""
        needed: set[Digest] = set()
        drafts = self._store.root / "drafts"
        for path in sorted(drafts.iterdir()) if drafts.is_dir() else ():
            if path.name.startswith("."):
                continue  # a leftover, as elsewhere
            if not self._is_old(path, DRAFT_GRACE_S) or held_by_another(path) is not None:
                self.collected.kept_bytes += _disk_bytes(path)
                if path.suffix == ".json" and (blob := needed_blob(path)) is not None:
                    needed.add(blob)
            else:
                self._remove("draft", path)
        recipes = self._store.root / "recipes"
        known = {each.hex().encode() for each in self._store.catalog.ids()}
        for path in sorted(recipes.iterdir()) if recipes.is_dir() else ():
            manifest_id = read_hint(path, 256)
            if manifest_id is not None and manifest_id.strip() not in known:
                self._remove("record", path)
        for private in self._store.catalog.private_ids():
            path = self._store.layout.private(private)  # there before its manifest, and as long as a draft
            if private.hex().encode() not in known and self._is_old(path, DRAFT_GRACE_S):
                self._remove("record", path)
        return needed

    def _consider(self, path: Path, needed: set[Digest]) -> None:
        head, _, rest = path.name.partition(".")
        try:
            digest = parse_digest(head)
        except ValueError:
            if self._is_old(path) and not path.is_dir():
                self._remove("leftover", path)
            return
        if rest.endswith("partial"):
            # An empty one was only ever a lock (store/locks.py).
            of_use = digest in needed and _disk_bytes(path) and not self._store.layout.blob(digest).exists()
            if of_use or not self._is_old(path) or held_by_another(path) is not None:
                self.collected.kept_bytes += _disk_bytes(path)
            else:
                self._remove("partial", path)
        elif digest in needed or path.lstat().st_ctime >= self._now:
            # Needed, or it arrived since we looked: then what needs it may be unknown to us.
            self.collected.kept_bytes += _disk_bytes(path)
        else:
            self._remove("blob" if not rest else "record", path)

    def _is_old(self, path: Path, grace_s: float = GRACE_S) -> bool:
        """Whether nobody can be busy with it any more; False if it is gone."""
        try:
            return self._now - path.lstat().st_mtime > grace_s
        except FileNotFoundError:
            return False

    def _remove(self, kind: str, path: Path) -> None:
        self._note(kind, path.name, _disk_bytes(path))
        if not self._dry_run:
            self._store.layout.files.unlink(path)

    def _note(self, kind: str, label: str, size_bytes: int) -> None:
        self.collected.removed.append(Removed(kind, label, size_bytes))


def forget(store: Store, manifest: Manifest) -> None:
    """Removes a checkpoint's names, pin, snapshot and manifest. Its blobs go with the next collection."""
    for ref in store.catalog.refs():
        if ref.manifest_id == manifest.id:
            store.catalog.remove_ref(ref.name, ref.revision)
            store.snapshots.remove_name(ref.name, ref.revision)
    store.catalog.unpin(manifest.id)
    store.snapshots.remove(manifest.id)
    store.catalog.remove(manifest.id)
    store.catalog.forget_private(manifest.id)


def _may_be_there(path: Path) -> bool:
    """False only for what is certainly gone: another user's file may be out of sight."""
    try:
        return path.exists()
    except OSError:
        return True


def _disk_bytes(path: Path) -> int:
    """Blocks that a file takes; 0 if it is not there."""
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
