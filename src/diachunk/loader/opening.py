"""From a component of a manifest to open files and what they hold, mending or waiting on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from diachunk.errors import LoadError
from diachunk.loader.blob import Blob, Damaged
from diachunk.loader.contents import INDEX_BYTES_MAX, check_listed, choose_files, shards_of
from diachunk.loader.feed import Arrivals
from diachunk.loader.headers import may_hold_pickle, read_layout
from diachunk.loader.kept import decode, encode
from diachunk.loader.layout import Layout, merged
from diachunk.manifest.model import Component, FileEntry


class Files(Protocol):
    """Where the files of a checkpoint come from."""

    def open(self, entry: FileEntry) -> Blob:
        """Opens a file; waits for one that is being fetched.

        Raises:
            LoadError: it is not here.
        """
        ...

    def again(self, blob: Blob, damage: Damaged, tensors: Sequence[str]) -> Blob:
        """A chunk is not what it should be: the file to try again, mended, or further along.

        Args:
            tensors: those that the chunk holds parts of, as far as is known.

        Raises:
            IntegrityError: it stays so.
        """
        ...

    def arrivals(self, blobs: list[Blob]) -> Arrivals | None:
        """What says which chunks are there yet; None if all of them are. May put other blobs into the list."""
        ...

    def proven(self, blob: Blob) -> None:
        """Every chunk of this file was hashed and is right."""
        ...

    def recall(self, blob: Blob) -> bytes | None:
        """What was kept beside this file (`loader/kept.py`), if anything."""
        ...

    def keep(self, blob: Blob, data: bytes) -> None:
        """Keeps it. It is no harm if that fails."""
        ...


def open_component(
    files: Files,
    component: Component,
    label: str,
    *,
    allow_code: bool,
    opened: Callable[[Blob], None] = lambda blob: None,
) -> tuple[list[Blob], Layout]:
    """Opens the files of a component that hold tensors, and reads their headers. The caller closes the files.

    Args:
        opened: called with each file before its header is read.

    Raises:
        LoadError: no tensors, or headers that make no sense.
        IntegrityError: a header is damaged, and nothing mended it.
    """
    choice = choose_files(component, label)
    entries, listed = choice.files, frozenset[str]()
    if choice.index is not None:
        entries, listed = shards_of(component, choice.index, _whole(files, choice.index), label)
    blobs: list[Blob] = []
    layouts: list[Layout] = []
    try:
        for number, entry in enumerate(entries):
            blobs.append(files.open(entry))
            opened(blobs[-1])
            layouts.append(_layout(files, blobs, number, allow_code=allow_code))
        layout = merged(layouts, [blob.facts.label for blob in blobs])
        if choice.index is not None:
            check_listed(listed, layout, choice.index, label)
        return blobs, layout
    except BaseException:
        close_all(blobs)
        raise


def _layout(files: Files, blobs: list[Blob], number: int, *, allow_code: bool) -> Layout:
    while True:
        blob = blobs[number]
        try:
            layout = _kept_or_read(files, blob, number, allow_code=allow_code)
        except Damaged as damage:
            blobs[number] = files.again(blob, damage, ())
        else:
            blob.forget()
            return layout


def _kept_or_read(files: Files, blob: Blob, number: int, *, allow_code: bool) -> Layout:
    """Its layout. That of a pickle is read once, from bytes that are hashed also where a stamp proves the file: what
    is kept of it must be right for every file of these chunks, also after a repair.
    """
    if allow_code or not may_hold_pickle(blob):
        return read_layout(blob, number, blob.facts.label, allow_code=allow_code)
    chunks = blob.facts.chunks.id
    known = decode(files.recall(blob), chunks, blob.size, number) if blob.trusted else None
    if known is not None:
        return known
    with blob.hashing_headers():
        layout = read_layout(blob, number, blob.facts.label)
    kept = encode(layout, chunks)
    if kept is not None:
        files.keep(blob, kept)
    return layout


def _whole(files: Files, entry: FileEntry) -> bytes:
    """All of a small file."""
    if entry.size > INDEX_BYTES_MAX:
        raise LoadError(f"{entry.path} is over {INDEX_BYTES_MAX:,} bytes: no index of shards")
    blob = files.open(entry)
    try:
        while True:
            try:
                return blob.read_at(0, entry.size)
            except Damaged as damage:
                blob = files.again(blob, damage, ())
    finally:
        blob.close()


def close_all(blobs: Sequence[Blob]) -> None:
    for blob in blobs:
        blob.close()
