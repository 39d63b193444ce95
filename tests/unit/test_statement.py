"""What those who draw the same files have in common: it follows from what is stated, and is never taken for more."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from diachunk.digest import derive_id, digest_of
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build
from diachunk.manifest.stated import StatedFile
from diachunk.manifest.statement import Statement, found_by_of
from diachunk.manifest.write import canonical_content
from diachunk.node.around.numbering import Numbering
from diachunk.node.stock.holdings import Entry

SIZES = (10, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 0)
FILES = [
    StatedFile("model", f"f{number}", size, sha256=f"{number}" * 64) for number, size in enumerate(SIZES)
] + [StatedFile("", "config.json", 33, git="c" * 40)]

SMALL = [file for file in FILES if 0 < file.size <= CHUNK_BYTES]


def test_the_id_follows_from_sizes_and_digests_alone() -> None:
    others = [dataclasses.replace(file, component="x", path=f"y/{file.path}") for file in FILES]
    random.Random(1).shuffle(others)
    assert Statement.of(others + FILES[:2]).id == Statement.of(FILES).id


@pytest.mark.parametrize("change", [{"size": 11}, {"sha256": "f" * 64}, {"sha256": "", "git": "0" * 40}])
def test_other_files_are_another_statement(change: dict[str, object]) -> None:
    other = dataclasses.replace(FILES[0], **change)  # type: ignore[arg-type]
    statements = {Statement.of(files).id for files in (FILES, FILES[1:], [other, *FILES[1:]], [])}
    assert len(statements) == 4


def test_everybody_numbers_the_pieces_alike() -> None:
    shuffled = FILES[::-1]
    one, two = Statement.of(FILES), Statement.of(shuffled)
    digests = [[digest for _, file in each.walk() for _, digest in file.chunks] for each in (one, two)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == one.chunk_count == Numbering(one).bits == 7
    assert Entry(one, 0.0, Path()).total_bytes == sum(SIZES) + 33


def test_no_manifest_has_the_id_of_a_statement() -> None:
    """Each id is a digest in a domain of its own: over the very same bytes they differ."""
    statement = Statement.of(FILES)
    made = manifest_of(SMALL)
    ids = {statement.id, statement.found_by, made.id, digest_of(b""), derive_id(canonical_content(made))}
    assert len(ids) == 4
    assert statement.id not in {file.key for file in FILES}


def manifest_of(files: list[StatedFile], *, sha256: str = "d" * 64, git: str = "") -> Manifest:
    """As drawing makes it: with a SHA-256 of every file, and with a git id where one was stated."""
    entries = []
    for file in files:
        digest = digest_of(file.path.encode())
        chunks = ChunkList.of([(file.size, digest)])
        entries.append(
            FileEntry(file.path, file.size, digest, chunks, file.sha256 or sha256, git=file.git or git)
        )
    return build("lab/x", "main", [Component("", tuple(entries))])


def test_what_was_drawn_is_found_by_what_was_stated() -> None:
    assert found_by_of(manifest_of(SMALL)) == Statement.of(SMALL).found_by
    assert found_by_of(manifest_of(SMALL, git="e" * 40)) != Statement.of(SMALL).found_by
    assert found_by_of(manifest_of([dataclasses.replace(FILES[0], sha256="")], sha256="")) is None


def test_where_both_digests_are_stated_a_manifest_is_found_all_the_same() -> None:
    both = [dataclasses.replace(FILES[0], git="a" * 40)]
    assert found_by_of(manifest_of(both)) == Statement.of(both).found_by
