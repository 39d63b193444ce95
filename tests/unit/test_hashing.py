"""One pass over a file gives what the plain libraries give, in bounded memory, and notices a change."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from diachunk.chunking.hashing import hash_files, hash_one
from diachunk.chunking.verify import BadChunk, ChunkRef, VerifiedChunk, verify
from diachunk.digest import digest_of
from diachunk.errors import IntegrityError, StoreError
from diachunk.limits import CHUNK_BYTES, MiB

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 9 * CHUNK_BYTES + 12345]


def pattern(size: int) -> bytes:
    return (hashlib.blake2b(size.to_bytes(8, "little")).digest() * (size // 64 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_one_pass_gives_all_three_hashes(tmp_path: Path, size: int) -> None:
    data, path = pattern(size), tmp_path / "f"
    path.write_bytes(data)
    seen: list[int] = []
    found = hash_one(path, lambda path, size_bytes: seen.append(size_bytes))
    pieces = [data[start : start + CHUNK_BYTES] for start in range(0, size, CHUNK_BYTES)]
    assert list(found.sizes) == [len(piece) for piece in pieces] == seen
    assert found.digests == b"".join(digest_of(piece) for piece in pieces)
    assert found.blake3 == digest_of(data)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert (found.size, found.path, found.rule) == (size, path, "tensor-4m/1")
    assert found.status.st_ino == path.stat().st_ino


def test_many_files_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = []
    for number, size in enumerate(SIZES * 2):
        path = tmp_path / f"f{number}"
        path.write_bytes(pattern(size))
        paths.append(path)
    paths.reverse()
    assert [(each.path, each.blake3) for each in hash_files(paths)] == [
        (path, digest_of(path.read_bytes())) for path in paths
    ]


@pytest.mark.parametrize("size", [1000, 3 * CHUNK_BYTES])
def test_a_file_that_is_written_meanwhile_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(size))

    def rewrite(path: Path, size_bytes: int) -> None:
        with path.open("r+b") as file:
            file.write(b"x")
        os.utime(path, ns=(1, 1))

    with pytest.raises(IntegrityError, match="changed while it was read"):
        hash_one(path, rewrite)


def test_a_file_that_is_cut_short_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * CHUNK_BYTES))
    with pytest.raises(IntegrityError, match="changed while it was read"):
        hash_one(path, lambda path, size_bytes: os.truncate(path, CHUNK_BYTES))


def test_a_file_that_is_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"old")
    with pytest.raises(IntegrityError, match="changed while it was read"):
        hash_one(path, lambda path, size_bytes: os.replace(tmp_path / "new", path))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*/none: No such file"):
        hash_files([tmp_path / "none"])
    with pytest.raises(StoreError, match="cannot read"):
        hash_one(tmp_path)


def test_memory_does_not_follow_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(256 * MiB)
    tracemalloc.start()
    try:
        hash_one(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MiB


def ref(data: bytes) -> ChunkRef:
    return ChunkRef(digest_of(data), len(data), bytes(32), 10)


def test_only_the_right_bytes_make_a_verified_chunk() -> None:
    chunk = verify(ref(b"abc"), memoryview(b"abc"))
    assert (bytes(chunk.data), chunk.ref.end) == (b"abc", 13)
    for wrong in (b"abd", b"ab", b"abcd", b""):
        with pytest.raises(BadChunk) as caught:
            verify(ref(b"abc"), memoryview(wrong))
        assert caught.value.ref == ref(b"abc")


def test_the_right_digest_of_another_length_is_refused() -> None:
    claimed = ChunkRef(digest_of(b"abc"), 4, bytes(32), 0)
    with pytest.raises(BadChunk):
        verify(claimed, memoryview(b"abc"))


def test_nothing_but_verify_makes_a_verified_chunk() -> None:
    with pytest.raises(TypeError, match="only verify"):
        VerifiedChunk(ref(b"abc"), memoryview(b"abc"))
    with pytest.raises(TypeError, match="only verify"):
        VerifiedChunk(ref(b"abc"), memoryview(b"abc"), _proof=object())
