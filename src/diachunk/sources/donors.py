"""Finds wanted chunks in files that are here already: other checkpoints, adopted files, other partials."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Set
from functools import partial
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import ManifestError, StoreError, UsageError
from diachunk.manifest import ChunkList, FileEntry
from diachunk.manifest.outline import Outline
from diachunk.schedule.work import WorkList
from diachunk.sources.local import LocalFiles
from diachunk.store.blobs import Presence
from diachunk.store.extents import read_claims
from diachunk.store.files import regular
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
        if not wanted:
            break
        # Donors only save work: a store or blob that may not be read is passed over.
        with contextlib.suppress(StoreError):
            _offer_store(source, wanted, store, excluded)
    return source if len(source.has) else None


def _offer_store(source: LocalFiles, wanted: dict[Digest, int], store: Store, excluded: set[Path]) -> None:
    seen: set[tuple[Digest, Digest]] = set()
    # Mapped, so that no variable keeps the text of one manifest in memory while the next is read.
    for files in map(partial(_sharing, store, wanted.keys()), store.catalog.outlines()):
        for file in files:
            key = file.blake3, file.chunks.id
            if key not in seen:
                seen.add(key)
                with contextlib.suppress(StoreError):
                    _offer(source, wanted, store, file, excluded)
        if not wanted:
            return


def _sharing(store: Store, wanted: Set[Digest], outline: Outline) -> list[FileEntry]:
    """The files that hold wanted chunks. Of all others no chunk list is built."""
    try:
        return _files_with(wanted, outline)
    except ManifestError:
        pass
    try:
        # Chunk lines of another spelling than ours, or damaged ones: `decode` will tell which.
        return _files_with(wanted, Outline.of(store.catalog.get(outline.id)))
    except (StoreError, UsageError):
        return []


def _files_with(wanted: Set[Digest], outline: Outline) -> list[FileEntry]:
    return [
        FileEntry(file.path, file.size, file.blake3, file.chunks())
        for file in outline.files()
        if not wanted.isdisjoint(file.digests())
    ]


def _offer(
    source: LocalFiles, wanted: dict[Digest, int], store: Store, file: FileEntry, excluded: set[Path]
) -> None:
    """Claims what a file and its partial hold. What is proven there is wanted no more; a better place than all others
    may still be found.
    """
    chunks = file.chunks
    matches = [(index, wanted[digest]) for index, (_, digest) in enumerate(chunks) if digest in wanted]
    if not matches:
        return
    holding = store.blobs.find(file.blake3, file.size, chunks)
    if holding.path is not None and holding.path not in excluded:
        proven = holding.presence is Presence.PROVEN
        _claim_inside(source, matches, chunks, holding.path, _status(holding.path), proven=proven)
    for outside in store.blobs.adopted.get(file.blake3):
        # Also one that is known to be damaged: what is good in it need not be fetched.
        if outside.path not in (holding.path, *excluded):
            _claim_inside(source, matches, chunks, outside.path, outside.unchanged())
    unfinished = store.layout.partial(file.blake3, chunks.id)
    if unfinished not in excluded and regular(unfinished) is not None:
        claims = read_claims(unfinished, chunks)
        for index, item in matches:
            if index in claims:
                source.claim(item, unfinished, chunks.offsets[index])
    for index, item in matches:
        if item in source.proven:
            wanted.pop(chunks.digest(index), None)


def _status(path: Path) -> os.stat_result | None:
    """Of a file that may have been adopted by a link to it."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _claim_inside(
    source: LocalFiles,
    matches: Iterable[tuple[int, int]],
    chunks: ChunkList,
    path: Path,
    status: os.stat_result | None,
    *,
    proven: bool = False,
) -> None:
    """Claims the chunks that end before the file does: one that is cut off must not spoil a run of many chunks."""
    for index, item in matches:
        if status is not None and chunks.offsets[index + 1] <= status.st_size:
            source.claim(item, path, chunks.offsets[index], proven=proven)
