"""Trust by type: only `verify` makes a VerifiedChunk, and blobs are made of nothing else.

A file whose chunks nobody has stated yet (a recipe's) is made of MeasuredChunks: a draft takes them, no partial
does, and a draft becomes a blob only when the whole file has the digest that was stated for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from diachunk.digest import Digest, digest_of


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk at its home: bytes [offset, offset + size) of the blob, named by their digest."""

    digest: Digest
    size: int
    blob: Digest
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class BadChunk(Exception):
    """The bytes are not the chunk's. Caught where the source of the bytes is known."""

    def __init__(self, ref: ChunkRef) -> None:
        self.ref = ref
        super().__init__(f"chunk {ref.digest.hex()[:16]} at {ref.offset}: bytes do not match")


class VerifiedChunk:
    """Bytes that were hashed and match their ChunkRef. `data` stays valid while its buffer is not reused."""

    __slots__ = ("data", "ref")

    def __init__(self, ref: ChunkRef, data: memoryview, *, _proof: object = None) -> None:
        if _proof is not _PROOF:
            raise TypeError("only verify() makes a VerifiedChunk")
        self.ref = ref
        self.data = data


_PROOF = object()


class MeasuredChunk:
    """Bytes as they came, and the digest that they have. Nobody has vouched for them: they are for drafts alone."""

    __slots__ = ("data", "digest", "ref")

    def __init__(self, ref: ChunkRef, data: memoryview) -> None:
        self.ref = ref
        self.data = data
        self.digest = digest_of(data)


Chunk: TypeAlias = VerifiedChunk | MeasuredChunk


def verify(ref: ChunkRef, buffer: memoryview) -> VerifiedChunk:
    """Hashes `buffer` and returns it as a chunk that may be written.

    Raises:
        BadChunk: wrong length or wrong bytes.
    """
    if len(buffer) != ref.size or digest_of(buffer) != ref.digest:
        raise BadChunk(ref)
    return VerifiedChunk(ref, buffer, _proof=_PROOF)
