"""Finds wanted chunks in files that are here already: other checkpoints, adopted files, other partials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Set
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import ManifestError, StoreError, UsageError
from diachunk.manifest import ChunkList
from diachunk.manifest.outline import FileOutline, Outline
from diachunk.schedule.work import WorkList
from diachunk.sources.local import LocalFiles
from diachunk.store.files import regular
from diachunk.store.partial import read_claims
from diachunk.store.store import Store


def find_donors(work: WorkList, stores: Iterable[Store], but_not: Iterable[Path] = ()) -> LocalFiles | None:
    """A source over every local file that some manifest says holds wanted chunks; None if there are none.

    Args:
        stores: the user's own store first, then read-only lower ones.
        but_not: files that are being filled now (they are the partial source's).
    """
    source = LocalFiles("donors", len(work))
    wanted = {work.digest(item): item for item in range(len(work))}
    excluded = set(but_not)
    for store in stores:
        # Donors only save work: a store or blob that may not be read is passed over.
        with contextlib.suppress(StoreError):
            _offer_store(source, wanted, store, excluded)
    return source if len(source.has) else None


def _offer_store(source: LocalFiles, wanted: dict[Digest, int], store: Store, excluded: set[Path]) -> None:
    seen: set[tuple[Digest, Digest]] = set()
    for outline in store.catalog.outlines():
        if not wanted:
            return
        for file, chunks in _sharing(outline, wanted.keys(), store):
            key = file.blake3, chunks.id
            if key not in seen:
                seen.add(key)
                with contextlib.suppress(StoreError):
                    _offer(source, wanted, store, file, chunks, excluded)


def _sharing(outline: Outline, wanted: Set[Digest], store: Store) -> list[tuple[FileOutline, ChunkList]]:
    """The files that hold wanted chunks, and their chunks; the lists of all others are not built."""
    try:
        return _files_with(outline, wanted)
    except ManifestError:
        pass
    try:
        # Chunk lines of another spelling than ours, or damaged ones: `decode` will tell which.
        return _files_with(Outline.of(store.catalog.get(outline.id)), wanted)
    except (StoreError, UsageError):
        return []


def _files_with(outline: Outline, wanted: Set[Digest]) -> list[tuple[FileOutline, ChunkList]]:
    return [(file, file.chunks()) for file in outline.files() if not wanted.isdisjoint(file.digests())]


def _offer(
    source: LocalFiles,
    wanted: dict[Digest, int],
    store: Store,
    file: FileOutline,
    chunks: ChunkList,
    excluded: set[Path],
) -> None:
    """Claims what one file and its partial hold. What is claimed is wanted no more: the first word stands."""
    matches = [(index, wanted[digest]) for index, (_, digest) in enumerate(chunks) if digest in wanted]
    if not matches:
        return
    holding = store.blobs.find(file.blake3, file.size, chunks)
    if holding.path is not None and holding.path not in excluded:
        for index, item in matches:
            source.claim(item, holding.path, chunks.offsets[index])
    partial = store.layout.partial(file.blake3, chunks.id)
    if partial not in excluded and regular(partial) is not None:
        claims = read_claims(partial, chunks)
        for index, item in matches:
            if index in claims:
                source.claim(item, partial, chunks.offsets[index])
    for index, item in matches:
        if item in source.has:
            wanted.pop(chunks.digest(index), None)
