"""The manifest in memory: columns instead of an object a chunk, so that 16 million chunks stay affordable."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from diachunk.digest import DIGEST_BYTES, Digest, digest_of

RULE = "tensor-4m/1"
DEFAULT_REVISION = "main"


class ChunkList:
    """The chunks of one file in order: packed digests beside sizes. Offsets follow from the sizes."""

    __slots__ = ("_offsets", "digests", "sizes")

    def __init__(self, digests: bytes, sizes: array[int]) -> None:
        if len(digests) != DIGEST_BYTES * len(sizes):
            raise ValueError(f"{len(digests)} digest bytes for {len(sizes)} chunks")
        self.digests = digests
        self.sizes = sizes
        self._offsets: array[int] | None = None

    @classmethod
    def of(cls, chunks: Iterable[tuple[int, Digest]]) -> ChunkList:
        pairs = list(chunks)
        return cls(b"".join(digest for _, digest in pairs), array("I", (size for size, _ in pairs)))

    @property
    def offsets(self) -> array[int]:
        """Where each chunk starts in its file, and one more entry: the file's size."""
        if self._offsets is None:
            self._offsets = array("Q", accumulate(self.sizes, initial=0))
        return self._offsets

    @property
    def total_bytes(self) -> int:
        return self.offsets[-1]

    def digest(self, index: int) -> Digest:
        return self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    @property
    def id(self) -> Digest:
        """Names this very partition of these very bytes: what a blob's stamp says was verified on it."""
        return digest_of(self.digests + b"".join(size.to_bytes(4, "little") for size in self.sizes))

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[tuple[int, Digest]]:
        """(size, digest) in file order."""
        for index, size in enumerate(self.sizes):
            yield size, self.digest(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkList) and self.digests == other.digests and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash((self.digests, len(self.sizes)))

    def __repr__(self) -> str:
        return f"<ChunkList of {len(self)} chunks, {self.total_bytes} bytes>"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a component.

    Attributes:
        path: relative POSIX path inside the component.
        size: bytes.
        blake3: digest of the whole file; the name of its blob in a store. A claim until hashed here.
        sha256: the same bytes' SHA-256 in lower-case hex, or "" if the manifest does not say.
        extra: keys of the entry that this version does not know: kept, hashed, re-served.
        git: the id that git gives these bytes (SHA-1 over "blob <size>", NUL and the bytes; 40 hex digits), for a
            file that a hub keeps under that name; "" for all others.
    """

    path: str
    size: int
    blake3: Digest
    chunks: ChunkList
    sha256: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    git: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A named group of files that load together. The unnamed component of a plain checkpoint is ""."""

    name: str
    files: tuple[FileEntry, ...]
    upstream: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Manifest:
    """A checkpoint: components -> files -> chunks. Built only by `codec.decode` and `codec.build`.

    Attributes:
        id: BLAKE3 of the canonical content (docs/manifest.md, rule M20).
        origins, places: hints, outside the id.
        signatures: outside the id, kept as they came.
        hints_extra: keys of `hints` that this version does not know.
    """

    id: Digest
    name: str
    revision: str
    components: tuple[Component, ...]
    chunking: str = RULE
    extra: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    places: tuple[Any, ...] = ()
    hints_extra: Mapping[str, Any] = field(default_factory=dict)
    signatures: tuple[Any, ...] = ()

    @property
    def hex_id(self) -> str:
        return self.id.hex()

    @property
    def ref(self) -> str:
        """NAME@REVISION."""
        return f"{self.name}@{self.revision}"

    @cached_property
    def total_bytes(self) -> int:
        return sum(component.total_bytes for component in self.components)

    @cached_property
    def chunk_count(self) -> int:
        return sum(len(file.chunks) for _, file in self.walk())

    def walk(self) -> Iterator[tuple[Component, FileEntry]]:
        """Every file with its component, in manifest order."""
        for component in self.components:
            for file in component.files:
                yield component, file

    def component(self, name: str) -> Component | None:
        return next((each for each in self.components if each.name == name), None)
