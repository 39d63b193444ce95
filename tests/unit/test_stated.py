"""What upstream states: how its files are named before their chunks are known, and what cannot be."""

from __future__ import annotations

import dataclasses

import pytest

from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest.stated import StatedCheckpoint, StatedComponent, StatedFile

SHA256 = "a" * 64
GIT = "b" * 40


def checkpoint(*files: StatedFile) -> StatedCheckpoint:
    return StatedCheckpoint("n", (StatedComponent("c", {}, files),))


def file(path: str = "f", size: int = 10, sha256: str = SHA256, git: str = "") -> StatedFile:
    return StatedFile("c", path, size, sha256, git)


def test_the_same_statement_is_one_key_wherever_it_stands() -> None:
    assert file("a").key == file("b/c").key == dataclasses.replace(file(), component="d").key


@pytest.mark.parametrize(
    "other",
    [file(size=11), file(sha256="c" * 64), file(sha256="", git=GIT), file(sha256="", git="c" * 40)],
)
def test_another_statement_is_another_key(other: StatedFile) -> None:
    assert other.key != file().key


def test_where_both_are_stated_the_sha256_names_it() -> None:
    assert file(git=GIT).key == file().key
    assert file(git=GIT).stated == f"sha256 {SHA256}"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_pieces_cover_the_file(size: int) -> None:
    pieces = file(size=size).pieces()
    assert sum(pieces.sizes) == size
    assert all(0 < each <= CHUNK_BYTES for each in pieces.sizes)
    assert len(set(pieces)) == len(pieces)


def test_pieces_of_two_files_never_bear_one_name() -> None:
    one, two = (file(size=9 * CHUNK_BYTES, sha256=each * 64) for each in "ab")
    names = [digest for each in (one, two) for _, digest in each.pieces()]
    assert len(set(names)) == len(names)
    assert digest_of(b"") not in names


def test_totals_and_labels() -> None:
    made = checkpoint(file("a", 3), file("b", 4, git=GIT))
    assert (made.ref, made.total_bytes) == ("n@main", 7)
    assert [each.label for each in made.walk()] == ["c/a", "c/b"]
    assert dataclasses.replace(file(), component="").label == "f"


def test_what_can_stand_in_a_manifest_passes() -> None:
    checkpoint(file("a"), file("b/c"), file("b/d")).check(DEFAULT)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("a", "a"), "but for case"),
        (("A", "a"), "but for case"),
        (("stra\u00dfe", "STRASSE"), "but for case"),
        (("a", "a/b"), "a file and a directory"),
        (("A/b", "a"), "a file and a directory"),
        (("../a",), "the path"),
        (("/a",), "absolute"),
        (("a\\b",), "backslash"),
        (("a\x1b[2J",), "invisible, control"),
        (("e\u0301",), "normal form C"),
        (("x" * 256,), "segment"),
    ],
)
def test_paths_that_no_manifest_takes_are_refused_before_anything_is_fetched(
    paths: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ManifestError, match=said):
        checkpoint(*(file(path) for path in paths)).check(DEFAULT)


def test_more_than_a_manifest_holds_is_refused() -> None:
    few = dataclasses.replace(DEFAULT, manifest_files_max=2, manifest_chunks_max=3)
    checkpoint(file("a"), file("b")).check(few)
    with pytest.raises(ManifestError, match="3 files are more than 2"):
        checkpoint(file("a"), file("b"), file("c")).check(few)
    checkpoint(file("a", 3 * CHUNK_BYTES)).check(few)
    with pytest.raises(ManifestError, match="more than a manifest can hold"):
        checkpoint(file("a", 3 * CHUNK_BYTES + 1)).check(few)
    with pytest.raises(ManifestError, match="more than a manifest can hold"):
        checkpoint(file("a", 2**53 - 1)).check(DEFAULT)
