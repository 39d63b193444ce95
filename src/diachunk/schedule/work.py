"""What has to become present, in columns: one item a distinct chunk, in order of first appearance."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diachunk.bitmap import Bitmap
from diachunk.chunking.verify import ChunkRef
from diachunk.digest import Digest
from diachunk.manifest.model import ChunkList, Manifest


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """One file to make present, as sources may need to know it.

    `component` and `path` are its first place in the manifest; `sha256` and `git` are "" when unknown.
    """

    digest: Digest
    size: int
    chunks: ChunkList
    component: str
    path: str
    sha256: str = ""
    git: str = ""

    @property
    def label(self) -> str:
        """How a person knows this file."""
        return f"{self.component}/{self.path}" if self.component else self.path


@dataclass(frozen=True, slots=True)
class Place:
    """One spot where a chunk's bytes belong: chunk `chunk` of blob `blob`, at `offset` in its file."""

    blob: int
    chunk: int
    offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent items of one blob: what one request asks for. At most CHUNK_BYTES."""

    blob: BlobFacts
    first: int
    refs: tuple[ChunkRef, ...]

    @property
    def offset(self) -> int:
        return self.refs[0].offset

    @property
    def size(self) -> int:
        return self.refs[-1].end - self.refs[0].offset

    @property
    def items(self) -> range:
        return range(self.first, self.first + len(self.refs))


def files_of(manifest: Manifest, components: frozenset[str] | None, *, merged: bool) -> list[BlobFacts]:
    """The files to make present; with `merged`, files of equal content once."""
    facts: dict[object, BlobFacts] = {}
    for component, file in manifest.walk():
        if components is None or component.name in components:
            key = file.blake3 if merged else (component.name, file.path)
            facts.setdefault(
                key,
                BlobFacts(
                    file.blake3, file.size, file.chunks, component.name, file.path, file.sha256, file.git
                ),
            )
    return list(facts.values())


class WorkList:
    """Items 0 .. len-1. Item order is file order, so neighbours in a file are neighbours here.

    With `distinct` (fetching) a digest met again is no new item but a further place of the first one. Without
    it (verifying) every place is an item of its own, because each has to be read. Chunks in `leave_out[blob]`
    are no items at all: they are not in the subset asked for.
    """

    def __init__(
        self,
        blobs: Sequence[BlobFacts],
        *,
        distinct: bool = True,
        leave_out: Sequence[Bitmap | None] | None = None,
    ) -> None:
        self.blobs = tuple(blobs)
        self._blob_of = array("I")
        self._chunk_of = array("I")
        self._first_item: list[int] = []
        self._more: dict[int, list[Place]] = {}
        self._places_in = [0] * len(self.blobs)
        self.total_bytes = 0
        seen: dict[Digest, int] = {}
        for number, blob in enumerate(self.blobs):
            self._first_item.append(len(self._blob_of))
            self._add_blob(number, blob, seen if distinct else None, leave_out[number] if leave_out else None)
        self._first_item.append(len(self._blob_of))

    def _add_blob(
        self, number: int, blob: BlobFacts, seen: dict[Digest, int] | None, skip: Bitmap | None
    ) -> None:
        chunks = blob.chunks
        for index, size in enumerate(chunks.sizes):
            if skip is not None and index in skip:
                continue
            self._places_in[number] += 1
            if seen is not None:
                item = seen.setdefault(chunks.digest(index), len(self._blob_of))
                if item != len(self._blob_of):
                    self._more.setdefault(item, []).append(Place(number, index, chunks.offsets[index]))
                    continue
            self._blob_of.append(number)
            self._chunk_of.append(index)
            self.total_bytes += size

    def places_in(self, blob: int) -> int:
        """How many chunks of this blob have to become present."""
        return self._places_in[blob]

    def __len__(self) -> int:
        return len(self._blob_of)

    def blob_of(self, item: int) -> int:
        """The number of the blob that is this item's home."""
        return self._blob_of[item]

    def chunk_of(self, item: int) -> int:
        """The chunk's position in its home blob's chunk list."""
        return self._chunk_of[item]

    def size(self, item: int) -> int:
        return self.blobs[self._blob_of[item]].chunks.sizes[self._chunk_of[item]]

    def offset(self, item: int) -> int:
        return self.blobs[self._blob_of[item]].chunks.offsets[self._chunk_of[item]]

    def digest(self, item: int) -> Digest:
        return self.blobs[self._blob_of[item]].chunks.digest(self._chunk_of[item])

    def ref(self, item: int) -> ChunkRef:
        return ChunkRef(
            self.digest(item), self.size(item), self.blobs[self._blob_of[item]].digest, self.offset(item)
        )

    def items_of(self, blob: int) -> range:
        """The items whose home is this blob."""
        return range(self._first_item[blob], self._first_item[blob + 1])

    def places(self, item: int) -> Iterator[Place]:
        """Everywhere the item's bytes belong, its home first."""
        yield Place(self._blob_of[item], self._chunk_of[item], self.offset(item))
        yield from self._more.get(item, ())

    def adjacent(self, item: int) -> bool:
        """Whether item + 1 directly follows `item` in the same file."""
        after = item + 1
        return (
            after < len(self)
            and self._blob_of[item] == self._blob_of[after]
            and self._chunk_of[item] + 1 == self._chunk_of[after]
        )

    def run(self, first: int, count: int) -> Run:
        return Run(
            self.blobs[self._blob_of[first]],
            first,
            tuple(self.ref(item) for item in range(first, first + count)),
        )
