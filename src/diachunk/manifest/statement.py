"""A recipe's files as those who fetch them share them, before any manifest of them exists. Rules P18 to P20 of
docs/protocol.md.

What upstream states of the files is all that follows from it: who fetches the same bytes comes to the same id and to
the same pieces in the same order, by whatever recipe, name or repository. It is no manifest, and never stored: its id
lives in a domain of its own, and so do the names of its files and pieces, since no bytes hash to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

from diachunk.digest import Digest, derive_key
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest.model import Component, FileEntry, Manifest
from diachunk.manifest.stated import StatedFile

_CONTEXT = "diachunk stated files v1"
_FINDING_CONTEXT = "diachunk manifest of stated files v1"


@dataclass(frozen=True)
class Statement:
    """The files that one fetch draws, each once.

    Attributes:
        id: of the swarm; follows from sizes and the digests that decide alone.
        found_by: manifests that claim to be of these files are asked for by it (`found_by_of`).
        files: in the order of their keys.
        private: it takes a credential to get them.
    """

    id: Digest
    found_by: Digest
    files: tuple[StatedFile, ...]
    private: bool = False
    name: ClassVar[str] = ""
    revision: ClassVar[str] = ""

    @classmethod
    def of(cls, files: Iterable[StatedFile], *, private: bool = False) -> Statement:
        """What is stated of these files, in whatever order and under whatever names they stand."""
        unique = {file.key: file for file in sorted(files, key=lambda file: file.git)}
        ordered = tuple(unique[key] for key in sorted(unique))
        lines = (f"{file.size} {file.stated}" for file in ordered)
        return cls(_id_over(_CONTEXT, lines), _found_by(ordered), ordered, private)

    @cached_property
    def chunk_count(self) -> int:
        """Pieces."""
        return sum(-(-file.size // CHUNK_BYTES) for file in self.files)

    @cached_property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @cached_property
    def _entries(self) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(file.path, file.size, file.key, file.pieces()) for file in self.files)

    def walk(self) -> Iterator[tuple[Component, FileEntry]]:
        """As a manifest's: each file under its key in place of a BLAKE3, and its pieces as chunks."""
        component = Component("", self._entries)
        for entry in self._entries:
            yield component, entry


Shared: TypeAlias = Manifest | Statement
"""What a swarm is about."""


def found_by_of(manifest: Manifest) -> Digest | None:
    """What a manifest can be found by that claims to be of stated files; None if a file has no digest that an
    upstream states.
    """
    files = [file for _, file in manifest.walk()]
    return _found_by(files) if all(file.sha256 or file.git for file in files) else None


def _found_by(files: Iterable[StatedFile | FileEntry]) -> Digest:
    # git's id first: a manifest has a SHA-256 of every file, and a git id of those alone of which one was stated.
    lines = (f"{file.size} {f'git id {file.git}' if file.git else f'sha256 {file.sha256}'}" for file in files)
    return _id_over(_FINDING_CONTEXT, lines)


def _id_over(context: str, lines: Iterable[str]) -> Digest:
    return derive_key(context, "\n".join(sorted(set(lines))).encode())
