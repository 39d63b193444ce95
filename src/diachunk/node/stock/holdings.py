"""What lies here, in columns: files by chunk list, checkpoints by distinct digest, chunks by digest."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.manifest import Manifest
from diachunk.manifest.model import ChunkList
from diachunk.manifest.statement import Shared, found_by_of

Key = tuple[Digest, Digest]
"""A blob and one chunk list of it (ChunkList.id)."""
Identity = tuple[int, ...]
"""(device, inode) of a file that still grows; with size and mtime_ns of one that is complete."""


@dataclass(eq=False, slots=True)
class FileHere:
    """One blob under one chunk list, and which of its chunks can be read where. Changed on the loop's thread.

    Attributes:
        paths: where its file may lie; more than one while it changes its name.
        identity: of that file, as it was when the chunks were found right.
        lent: a session of this process fills it.
        places: checkpoints it is part of, and the number of its first chunk among theirs.
    """

    key: Key
    size: int
    chunks: ChunkList
    paths: Sequence[Path] = ()
    identity: Identity = ()
    present: Bitmap = field(default_factory=lambda: Bitmap(0))
    whole: bool = False
    lent: bool = False
    places: list[tuple[Entry, int]] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return self.key[0]

    def has(self, index: int) -> bool:
        return self.whole or index in self.present

    def chunks_in(self, start: int, end: int) -> range:
        """The chunks that these bytes lie in."""
        if start >= end:
            return range(0)
        return range(bisect_right(self.chunks.offsets, start) - 1, bisect_left(self.chunks.offsets, end))

    def held(self) -> Iterable[int]:
        return range(len(self.chunks)) if self.whole else self.present


class Entry:
    """One checkpoint, by distinct digest (P5): bit i of `have` is the i-th in order of first appearance.

    Attributes:
        found_by: what it can be found by, if it claims to be of stated files (P20).
    """

    def __init__(self, manifest: Shared, used_at: float, text_path: Path) -> None:
        self.manifest = manifest
        self.id = manifest.id
        self.name = manifest.name
        self.revision = manifest.revision
        self.total_bytes = manifest.total_bytes
        self.found_by = found_by_of(manifest) if isinstance(manifest, Manifest) else None
        self.used_at = used_at
        self.text_path = text_path
        self.item_of = array("I")
        self.weights = array("Q")
        seen: dict[Digest, int] = {}
        for _, file in manifest.walk():
            for size, digest in file.chunks:
                item = seen.setdefault(digest, len(self.weights))
                if item == len(self.weights):
                    self.weights.append(0)
                self.weights[item] += size
                self.item_of.append(item)
        self.have = Bitmap(len(self.weights))
        self.have_bytes = 0

    @property
    def bits(self) -> int:
        """How many distinct digests it has."""
        return len(self.weights)

    def add(self, item: int) -> bool:
        """Sets a bit; whether it was not set before."""
        if item in self.have:
            return False
        self.have.add(item)
        self.have_bytes += self.weights[item]
        return True


class Table:
    """Checkpoints, their files, and where a chunk lies. Built anew when a checkpoint comes or goes, on a thread of
    its own: the files and entries of the table before it are taken over as they are.
    """

    def __init__(self, entries: Mapping[Digest, Entry], before: Table | None = None) -> None:
        self.entries = dict(entries)
        self.files: dict[Key, FileHere] = {}
        self.places: dict[Key, list[tuple[Entry, int]]] = {}
        self._contents: dict[Digest, dict[Key, int]] = {}
        for entry in self.entries.values():
            base = 0
            contents = self._contents.setdefault(entry.id, {})
            for _, file in entry.manifest.walk():
                key = (file.blake3, file.chunks.id)
                known = self.files.get(key) or (before.files.get(key) if before else None)
                if known is None:
                    known = FileHere(key, file.size, file.chunks, present=Bitmap(len(file.chunks)))
                self.files[key] = known
                if key not in contents:
                    contents[key] = base
                    self.places.setdefault(key, []).append((entry, base))
                base += len(file.chunks)
        self.by_blob: dict[Digest, list[FileHere]] = {}
        for each in self.files.values():
            self.by_blob.setdefault(each.digest, []).append(each)
        self._index()

    def _index(self) -> None:
        """Eight bytes of each digest, sorted, beside its position among all chunks of all files."""
        self._order = list(self.files.values())
        self._starts = array("Q", [0])
        prefixes = array("Q")
        for each in self._order:
            self._starts.append(self._starts[-1] + len(each.chunks))
            if each.chunks.digests:
                # Every fourth of the 64-bit words of packed digests of 32 bytes.
                prefixes.extend(memoryview(each.chunks.digests).cast("Q")[::4])
        self._positions = array("I", sorted(range(len(prefixes)), key=prefixes.__getitem__))
        self._prefixes = array("Q", map(prefixes.__getitem__, self._positions))
        self._shared = Bitmap(len(prefixes))
        for before, after in zip(range(len(prefixes)), range(1, len(prefixes)), strict=False):
            if self._prefixes[before] == self._prefixes[after]:
                self._shared.add(self._positions[before])
                self._shared.add(self._positions[after])
        self._number = {each.key: number for number, each in enumerate(self._order)}

    def adopt_places(self) -> None:
        """Lets the files know their checkpoints. On the loop's thread, when this table takes over."""
        for key, each in self.files.items():
            each.places = self.places[key]

    def where(self, digest: Digest) -> Iterator[tuple[FileHere, int]]:
        """Every file with this chunk, and its index there; whether it is present or not."""
        wanted = _WORD.unpack_from(digest)[0]
        at = bisect_left(self._prefixes, wanted)
        while at < len(self._prefixes) and self._prefixes[at] == wanted:
            file, index = self._at(self._positions[at])
            if file.chunks.digest(index) == digest:
                yield file, index
            at += 1

    def _at(self, position: int) -> tuple[FileHere, int]:
        number = bisect_right(self._starts, position) - 1
        return self._order[number], position - self._starts[number]

    def find(self, digest: Digest) -> tuple[FileHere, int] | None:
        """A file in which this chunk is present."""
        return next(((file, index) for file, index in self.where(digest) if file.has(index)), None)

    def shared(self, file: FileHere) -> Iterator[int]:
        """Chunks of a file that may occur in other places as well."""
        start = self._starts[self._number[file.key]]
        return (index for index in range(len(file.chunks)) if start + index in self._shared)

    def is_shared(self, file: FileHere, index: int) -> bool:
        return self._starts[self._number[file.key]] + index in self._shared

    def items(self, file: FileHere, index: int) -> Iterator[tuple[Entry, int]]:
        """What becomes present with this chunk of this file: checkpoints, and their items."""
        if self.is_shared(file, index):
            for other, there in self.where(file.chunks.digest(index)):
                for entry, base in other.places:
                    yield entry, entry.item_of[base + there]
        else:
            for entry, base in file.places:
                yield entry, entry.item_of[base + index]

    def recount(self, entry: Entry) -> None:
        """Works out what is here of a checkpoint from its files: after a loss, and when it is new."""
        entry.have, entry.have_bytes = Bitmap(entry.bits), 0
        for key, base in self._contents[entry.id].items():
            file = self.files[key]
            for index in file.held():
                entry.add(entry.item_of[base + index])
            for index in self.shared(file):
                if not file.has(index) and self.find(file.chunks.digest(index)):
                    entry.add(entry.item_of[base + index])


_WORD = struct.Struct("=Q")
