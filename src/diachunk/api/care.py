"""ls, show, diff, rm, gc: looking after what is here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from diachunk.api.context import Context
from diachunk.api.parts import called_part_of, parts_called
from diachunk.api.several import Several, several
from diachunk.api.targets import resolve
from diachunk.digest import Digest
from diachunk.manifest import Manifest
from diachunk.manifest.outline import Outline
from diachunk.store.blobs import Presence
from diachunk.store.catalog import Catalog
from diachunk.store.collect import Collected, Collector
from diachunk.store.store import Store
from diachunk.store.usage import own_files

Home = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Held:
    """One checkpoint of the store, as its manifest's outline says: claims, until `manifest` is asked for.

    Attributes:
        id: the manifest's id.
        name, revision: what the manifest calls itself.
        total_bytes: of all files.
        names: local names that stand for it, NAME@REVISION; may be empty.
        present_bytes: of the files that are complete here.
        used_at: seconds since the epoch.
        part_of: NAME@REVISION of which this calls itself a part (manifest/parts.py), or "".
    """

    id: Digest
    name: str
    revision: str
    total_bytes: int
    names: tuple[str, ...]
    pinned: bool
    present_bytes: int
    used_at: float
    catalog: Catalog = field(repr=False, compare=False)
    part_of: str = ""

    @property
    def hex_id(self) -> str:
        return self.id.hex()

    @property
    def ref(self) -> str:
        """NAME@REVISION, by what the manifest calls itself."""
        return f"{self.name}@{self.revision}"

    @property
    def complete(self) -> bool:
        return self.present_bytes == self.total_bytes

    @cached_property
    def manifest(self) -> Manifest:
        """Read and proven when first asked for.

        Raises:
            StoreError: it is damaged.
            UsageError: it was removed since.
        """
        return self.catalog.get(self.id)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a store holds.

    Attributes:
        disk_bytes: what its own files take; adopted files take none.
        free_bytes: what may still be written on its file system.
        unfinished_bytes: of `disk_bytes`, what is here of recipes' files on their way.
    """

    root: str
    held: tuple[Held, ...]
    disk_bytes: int
    free_bytes: int
    unfinished_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One file of B beside A.

    Attributes:
        shared_bytes: of its chunks that A has, in whichever file; `new_bytes`: of those that it has not. A chunk that
            an earlier file of B has as well counts as shared.
        only_in_a: B has no such file; both counts are 0 then.
    """

    component: str
    path: str
    size: int
    shared_bytes: int
    new_bytes: int
    only_in_a: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """What going from A to B would fetch.

    Attributes:
        fetch_bytes: of B's chunks that A has not, each counted once.
        total_bytes: of all files of B.
    """

    files: tuple[FileDiff, ...]
    fetch_bytes: int
    total_bytes: int


def ls(home: Home = None) -> Listing:
    """Lists the checkpoints of the store, most recently used first.

    Raises:
        StoreError: the store cannot be read.
    """
    store = Context.make(home).store
    names: dict[Digest, list[str]] = {}
    for ref in store.catalog.refs():
        names.setdefault(ref.manifest_id, []).append(str(ref))
    pins = store.catalog.pins()
    own, disk_bytes = own_files(store.layout)

    def held_by(outline: Outline) -> Held:
        return Held(
            outline.id,
            outline.name,
            outline.revision,
            outline.total_bytes,
            tuple(names.get(outline.id, ())),
            outline.id in pins,
            _present_bytes(store, outline, own),
            store.catalog.used_at(outline.id),
            store.catalog,
            called_part_of(outline),
        )

    # Mapped, so that no variable keeps the text of one manifest in memory while the next is read.
    held = list(map(held_by, store.catalog.outlines()))
    held.sort(key=lambda each: -each.used_at)
    unfinished = store.drafts.disk_bytes()
    return Listing(
        str(store.root), tuple(held), disk_bytes + unfinished, store.layout.free_bytes(), unfinished
    )


def _present_bytes(store: Store, outline: Outline, own: dict[str, int]) -> int:
    """Bytes of a checkpoint's files that are complete here."""
    return sum(
        file.size
        for file in outline.files()
        if own.get(file.blake3.hex()) == file.size or store.blobs.holds(file.blake3, file.size)
    )


def show(target: str, *, home: Home = None) -> tuple[Manifest, dict[tuple[str, str], Presence]]:
    """A checkpoint's manifest, and for each (component, path) what is here of it.

    Raises:
        UsageError, ManifestError: no such target, or no valid manifest.
    """
    context = Context.make(home)
    manifest = resolve(target, context, local=True).manifest
    find = context.store.blobs.find
    return manifest, {
        (component.name, file.path): find(file.blake3, file.size, file.chunks).presence
        for component, file in manifest.walk()
    }


def diff(a: str, b: str, *, home: Home = None) -> Difference:
    """What a machine that has A would fetch for B.

    Raises:
        UsageError, ManifestError: no such target, or no valid manifest.
    """
    context = Context.make(home)
    before, after = (resolve(text, context, local=True).manifest for text in (a, b))
    have = {digest for _, file in before.walk() for _, digest in file.chunks}
    files: list[FileDiff] = []
    fetch = 0
    for component, file in after.walk():
        shared = new = 0
        for size, digest in file.chunks:
            if digest in have:
                shared += size
            else:
                new += size
                have.add(digest)
        fetch += new
        files.append(FileDiff(component.name, file.path, file.size, shared, new))
    there = {(each.component, each.path) for each in files}
    gone = [
        (component.name, file)
        for component, file in before.walk()
        if (component.name, file.path) not in there
    ]
    files += [FileDiff(name, file.path, file.size, 0, 0, only_in_a=True) for name, file in gone]
    return Difference(tuple(files), fetch, after.total_bytes)


def rm(targets: Several, *, home: Home = None) -> tuple[list[Manifest], Collected]:
    """Removes checkpoints and the blobs that nothing else needs. Adopted files are never touched. What was placed
    into other programs' caches is taken out of them first: links there would lead nowhere.

    Raises:
        UsageError: nothing here goes by that target; nothing is then removed.
    """
    context = Context.make(home)
    manifests = [resolve(text, context, local=True).manifest for text in several(targets)]
    notes = _take_out(context, manifests)
    collected = _collector(context).collect(removing=manifests)
    collected.notes += [*notes, *_parts_left(context, manifests)]
    return manifests, collected


def _parts_left(context: Context, removed: Iterable[Manifest]) -> list[str]:
    """Tells of checkpoints that are parts of what was removed: they keep files of it here."""
    left = [f"{each.name}@{each.revision}" for whole in removed for each in parts_called(whole.ref, context)]
    return [f"{each}, a part of it, stays here, and so do its files" for each in left]


def _take_out(context: Context, manifests: Iterable[Manifest]) -> list[str]:
    """Takes checkpoints out of the places where other programs are shown them; returns what to tell of it."""
    placed = context.store.catalog.placed()
    notes = []
    for manifest in manifests:
        if manifest.id in placed:
            from diachunk.api.placing import undo_manifest

            undone = undo_manifest(context, manifest)
            if undone.removed:
                notes.append(
                    f"{manifest.ref}: no longer shown to other programs ({len(undone.removed)} names)"
                )
            notes += [f"left {path}: {why}" for path, why in undone.left]
    return notes


def gc(
    *,
    dry_run: bool = False,
    max_bytes: int | None = None,
    older_than_s: float | None = None,
    home: Home = None,
) -> Collected:
    """Removes what no name or pin needs. See store.collect. What was placed and has been taken away by hand since is
    no reason to keep a checkpoint any more.

    Raises:
        StoreError: the disk refused.
    """
    from diachunk.api.placed import forget_gone  # `ls` has to be instant

    context = Context.make(home)
    tidied = forget_gone(context, dry_run=dry_run)
    collector = _collector(context, not_placed=tidied.free, dry_run=dry_run)
    collected = collector.collect(older_than_s=older_than_s, max_bytes=max_bytes)
    collected.places += tidied.notes
    return collected


def _collector(context: Context, *, not_placed: Iterable[Digest] = (), dry_run: bool = False) -> Collector:
    pinned = [bytes.fromhex(each) for each in context.config.pins.values()]
    return Collector(context.store, pinned=pinned, not_placed=not_placed, dry_run=dry_run)
