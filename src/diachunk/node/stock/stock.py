"""The loop's side of what is here: the table, what is gained and lost of it, and who hears of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.node.stock.disk import Found
from diachunk.node.stock.feed import Feed
from diachunk.node.stock.holdings import Entry, FileHere, Identity, Key, Table


@dataclass(frozen=True, slots=True)
class Piece:
    """Verified bytes [offset, offset + size) of a file, if that is still the same one when it is opened."""

    file: FileHere
    paths: Sequence[Path]
    identity: Identity
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Lent:
    """A live partial, as it was when it was lent."""

    key: Key
    paths: Sequence[Path]
    identity: Identity
    present: Bitmap


class Stock:
    """Used on the loop's thread alone.

    Attributes:
        unproven: files of which only hashing can tell what is right.
    """

    def __init__(self, limits: Limits) -> None:
        self.table = Table({})
        self.feeds: dict[Digest, Feed] = {}
        self.unproven: dict[Key, Found] = {}
        self._limits = limits

    # --- where bytes lie -----------------------------------------------------------------------------------

    def pieces(self, file: FileHere, start: int, end: int) -> list[Piece] | None:
        """Where these bytes of a file lie, in order; None if not all of them are here."""
        if file.whole:
            return [Piece(file, file.paths, file.identity, start, end - start)]
        pieces: list[Piece] = []
        for index in file.chunks_in(start, end):
            offset = file.chunks.offsets[index]
            found = (file, index) if file.has(index) else self.table.find(file.chunks.digest(index))
            if found is None:
                return None
            first = max(start - offset, 0)
            size = min(end - offset, file.chunks.sizes[index]) - first
            piece = piece_of(*found)
            piece = Piece(piece.file, piece.paths, piece.identity, piece.offset + first, size)
            if pieces and _follows(pieces[-1], piece):
                last = pieces.pop()
                piece = Piece(last.file, last.paths, last.identity, last.offset, last.size + size)
            pieces.append(piece)
        return pieces

    # --- gained and lost -----------------------------------------------------------------------------------

    def gain(self, file: FileHere, index: int) -> None:
        if file.has(index):
            return
        file.present.add(index)
        for entry, item in self.table.items(file, index):
            if entry.add(item):
                self.feeds[entry.id].gain(item)

    def lose(self, file: FileHere) -> None:
        if not file.whole and not len(file.present):
            return
        file.whole, file.present = False, Bitmap(len(file.chunks))
        for entry, _ in {id(each): (each, base) for each, base in self._sharers(file)}.values():
            self.table.recount(entry)
            self.feeds[entry.id].lose()

    def _sharers(self, file: FileHere) -> Iterable[tuple[Entry, int]]:
        yield from file.places
        for index in self.table.shared(file):
            yield from self.table.items(file, index)

    def apply(self, found: Found) -> None:
        file = self.table.files.get(found.key)
        if file is None or (file.lent and not found.proven):
            return
        if found.proven:
            self.unproven.pop(found.key, None)
            if file.whole and file.identity != found.identity and file.identity:
                self.lose(file)
            file.paths, file.identity = found.paths, found.identity
            if not file.whole:
                self.gain_all(file)
            return
        if file.whole or file.identity[:2] != found.identity[:2]:
            self.lose(file)
        file.paths, file.identity = found.paths, found.identity
        if found.paths:
            self.unproven[found.key] = found
        else:
            self.unproven.pop(found.key, None)

    def gain_all(self, file: FileHere) -> None:
        for index in range(len(file.chunks)):
            self.gain(file, index)
        file.whole, file.present = True, Bitmap(len(file.chunks))

    def take_lent(self, lent: Iterable[Lent]) -> None:
        """Live partials of this process: what they hold is right, and more of it is told as it comes."""
        for each in lent:
            file = self.table.files.get(each.key)
            if file is None or file.whole or file.lent:
                continue
            self.unproven.pop(each.key, None)
            if file.identity != each.identity:
                self.lose(file)
            file.paths, file.identity, file.lent = each.paths, each.identity, True
            for index in each.present:
                self.gain(file, index)

    def take_over(self, table: Table) -> list[Entry]:
        """Another set of checkpoints; returns the new ones, of which nothing is counted yet."""
        before, self.table = self.table, table
        table.adopt_places()
        for gone in before.entries.keys() - table.entries.keys():
            self.feeds.pop(gone).close()
        for key in self.unproven.keys() - table.files.keys():
            self.unproven.pop(key)
        new = [table.entries[key] for key in table.entries.keys() - before.entries.keys()]
        for entry in new:
            self.feeds[entry.id] = Feed(entry, self._limits)
        return new

    def close(self) -> None:
        for feed in self.feeds.values():
            feed.close()


def piece_of(file: FileHere, index: int) -> Piece:
    return Piece(file, file.paths, file.identity, file.chunks.offsets[index], file.chunks.sizes[index])


def _follows(before: Piece, after: Piece) -> bool:
    return before.file is after.file and before.offset + before.size == after.offset
