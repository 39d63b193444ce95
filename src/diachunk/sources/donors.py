"""Finds wanted chunks in files that are here already: other checkpoints, adopted files, other partials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from diachunk.digest import DIGEST_BYTES, Digest
from diachunk.errors import StoreError
from diachunk.manifest import FileEntry
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
    for manifest in store.catalog.manifests():
        for _, file in manifest.walk():
            key = file.blake3, file.chunks.id
            if key not in seen:
                seen.add(key)
                with contextlib.suppress(StoreError):
                    _offer(source, wanted, store, file, excluded)


def _offer(
    source: LocalFiles, wanted: dict[Digest, int], store: Store, file: FileEntry, excluded: set[Path]
) -> None:
    packed = file.chunks.digests
    matches = [
        (index, item)
        for index in range(len(file.chunks))
        if (item := wanted.get(packed[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])) is not None
    ]
    if not matches:
        return
    offsets = file.chunks.offsets
    holding = store.blobs.find(file.blake3, file.size, file.chunks)
    if holding.path is not None and holding.path not in excluded:
        for index, item in matches:
            source.claim(item, holding.path, offsets[index])
    partial = store.layout.partial(file.blake3, file.chunks.id)
    if partial not in excluded and regular(partial) is not None:
        claims = read_claims(partial, file.chunks)
        for index, item in matches:
            if index in claims:
                source.claim(item, partial, offsets[index])
