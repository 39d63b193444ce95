"""A partial: chunks at their final offsets, claims after a kill, and what must never become a blob."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.errors import StoreError
from diachunk.store import partial as partial_module
from diachunk.store.extents import allocated, extents, read_claims
from diachunk.store.files import Files
from diachunk.store.locks import held_by_another
from diachunk.store.partial import Partial, Vanished
from store_files import BLOCK, CHUNKS, DATA, PIECES, chunk_list, listing, verified, write


def opened(path: Path, files: Files | None = None) -> Partial:
    return Partial(path, CHUNKS, files or Files(), lambda partial: os.rename(path, path.with_name("done")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.partial"


@pytest.fixture
def partial(path: Path) -> Iterator[Partial]:
    partial = opened(path)
    yield partial
    partial.close()


def test_chunks_lie_at_their_final_offsets_whatever_the_order(partial: Partial, path: Path) -> None:
    write(partial, PIECES, [3, 0, 2, 1])
    partial.complete()
    assert path.with_name("done").read_bytes() == DATA
    assert list(listing(path.parent)) == ["done"]


def test_it_is_sparse_and_shows_what_was_written(partial: Partial, path: Path) -> None:
    assert path.stat().st_size == len(DATA)
    assert allocated(path) == 0
    assert list(partial.claimed()) == []
    write(partial, PIECES, [1, 3])
    assert list(partial.claimed()) == [1, 3]
    assert allocated(path) == 2 * BLOCK


def test_a_later_run_claims_what_an_earlier_one_wrote(partial: Partial, path: Path) -> None:
    write(partial, PIECES, [0, 2])
    partial.close()
    again = opened(path)
    assert list(again.claimed()) == [0, 2]
    assert list(read_claims(path, CHUNKS)) == [0, 2]
    again.close()


def test_only_chunks_that_lie_wholly_in_what_was_written_are_claimed(path: Path) -> None:
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(len(DATA))
        os.pwrite(file.fileno(), b"x" * (BLOCK + BLOCK // 2), BLOCK)
    partial = opened(path)
    assert list(partial.claimed()) == [1]
    partial.close()


@pytest.mark.parametrize("size", [0, 100, len(DATA) - 1, len(DATA) + 4096])
def test_a_partial_of_another_size_is_made_the_right_size(path: Path, size: int) -> None:
    path.write_bytes(b"x" * size)
    partial = opened(path)
    assert path.stat().st_size == len(DATA)
    assert len(partial.claimed()) <= 4
    partial.close()


def test_what_it_holds_need_not_be_written_again(partial: Partial) -> None:
    write(partial, PIECES, [1])
    good, other = verified(CHUNKS, 1, PIECES[1]), verified(CHUNKS, 2, PIECES[2])
    assert partial.holds(good, CHUNKS.offsets[1])
    assert not partial.holds(other, CHUNKS.offsets[2])
    assert not partial.holds(other, CHUNKS.offsets[1])


def test_a_link_is_never_written_through(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_bytes(b"mine")
    path.symlink_to(target)
    with pytest.raises(StoreError, match="is a link; refusing"):
        opened(path)
    assert target.read_bytes() == b"mine"
    assert list(read_claims(path, CHUNKS)) == []
    assert held_by_another(path) is None


def test_a_fifo_or_directory_is_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(StoreError, match="not a regular file"):
        opened(path)
    assert list(read_claims(path, CHUNKS)) == []
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        opened(path)


def test_a_refusal_leaves_no_descriptor_open(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    before = os.listdir("/dev/fd")
    for _ in range(5):
        dir_fd = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(StoreError):
            Partial(path, CHUNKS, Files(), None, dir_fd)
    assert len(os.listdir("/dev/fd")) == len(before)


@pytest.mark.parametrize("replaced", [False, True])
def test_one_that_was_removed_or_replaced_meanwhile_never_completes(
    partial: Partial, path: Path, replaced: bool
) -> None:
    write(partial, PIECES)
    path.unlink()
    if replaced:
        path.write_bytes(b"of another process")
    with pytest.raises(Vanished) as caught:
        partial.complete()
    assert caught.value.retryable
    assert not path.with_name("done").exists()


def test_two_processes_may_fill_one_and_the_second_to_complete_is_told(path: Path) -> None:
    first, second = opened(path), opened(path)
    assert (first.locked, second.locked) == (True, False)
    before = held_by_another(path)
    assert before is not None
    os.utime(path, (1, 1))
    first.beat()
    assert held_by_another(path) not in (None, before), "who waits sees that somebody is at work"
    write(first, PIECES, [0, 1])
    write(second, PIECES, [2, 3])
    write(second, PIECES, [1])
    second.complete()
    with pytest.raises(Vanished):
        first.complete()
    assert path.with_name("done").read_bytes() == DATA
    for each in (first, second):
        each.close()
    assert held_by_another(path) is None


def test_opening_one_that_is_completed_at_that_moment_leaves_the_blob_read_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, plain_open = opened(path), os.open
    write(other, PIECES)

    def open_then_lose_the_race(name: Path, flags: int, mode: int, *, dir_fd: int | None) -> int:
        fd = plain_open(name, flags, mode, dir_fd=dir_fd)
        os.fchmod(other.fd, 0o444)
        other.complete()
        other.close()
        return fd

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_then_lose_the_race)
        late = opened(path)
    late.discard()
    done = path.with_name("done")
    assert (done.read_bytes(), stat.S_IMODE(done.stat().st_mode)) == (DATA, 0o444)


class FlushFailsOnce(Files):
    failed = False

    def flush_data(self, fd: int) -> None:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EIO, "Input/output error")


def test_a_failed_flush_is_sticky(path: Path) -> None:
    partial = opened(path, FlushFailsOnce())
    write(partial, PIECES)
    for action in (partial.flush, partial.flush, partial.complete):
        with pytest.raises(StoreError, match=r"cannot flush .*: Input/output error") as caught:
            action()
        assert caught.value.errno == errno.EIO
    assert not path.with_name("done").exists()
    partial.close()
    again = opened(path)
    assert list(again.claimed()) == [0, 1, 2, 3], "the next run verifies it again"
    again.close()


class Full(Files):
    def pwrite(self, fd: int, data: memoryview, offset: int, *more: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_with_what_to_do(path: Path) -> None:
    partial = opened(path, Full())
    with pytest.raises(StoreError, match=r"cannot write .*No space left") as caught:
        write(partial, PIECES, [0])
    assert "free some space" in caught.value.hint
    partial.close()


def test_the_write_is_whole_though_the_system_takes_it_in_pieces(
    partial: Partial, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, data[:1000], offset))
    write(partial, PIECES)
    assert path.read_bytes() == DATA


def test_discarding_removes_only_what_nobody_else_holds(path: Path) -> None:
    first, second = opened(path), opened(path)
    second.discard()
    assert path.exists()
    first.discard()
    assert not path.exists()


# --- file systems that cannot tell holes from data ---------------------------------------------------------


@pytest.fixture
def no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "extents", lambda fd, size: iter([(0, size)] if size else []))


def test_where_holes_do_not_show_the_hint_says_what_to_hash(no_holes: None, path: Path) -> None:
    partial = opened(path)
    write(partial, PIECES, [1, 2])
    partial.flush()
    partial.close()
    again = opened(path)
    assert list(again.claimed()) == [1, 2]
    write(again, PIECES, [0, 3])
    assert again.holds(verified(CHUNKS, 1, PIECES[1]), CHUNKS.offsets[1])
    again.flush()
    again.complete()
    again.close()
    assert list(listing(path.parent)) == ["done"], "the hint goes with the partial"


@pytest.mark.parametrize(
    "hint", [b"", b"garbage", CHUNKS.id, CHUNKS.id + b"\xff", bytes(32) + b"\x01", b"x" * 9999]
)
def test_a_hint_that_is_none_means_that_all_has_to_be_hashed(no_holes: None, path: Path, hint: bytes) -> None:
    partial = opened(path)
    write(partial, PIECES, [1])
    path.with_name(f"{path.name}.have").write_bytes(hint)
    assert list(partial.claimed()) == [0, 1, 2, 3]
    partial.close()


def test_extents_of_an_empty_file_are_none(path: Path) -> None:
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert list(extents(file.fileno(), 0)) == []


def test_an_empty_file_is_complete_at_once(path: Path) -> None:
    partial = Partial(path, chunk_list([]), Files(), lambda partial: os.rename(path, path.with_name("done")))
    assert len(partial.claimed()) == 0
    partial.complete()
    partial.close()
    assert path.with_name("done").read_bytes() == b""


@pytest.mark.parametrize("written", [0, 1])
def test_one_that_nothing_was_written_to_goes_when_it_is_closed(path: Path, written: int) -> None:
    partial = opened(path)
    write(partial, PIECES, range(written))
    partial.close()
    assert path.exists() == bool(written)


def test_one_that_somebody_else_fills_is_left_to_him(path: Path) -> None:
    first, second = opened(path), opened(path)
    second.close()
    assert path.exists()
    first.close()
    assert not path.exists()
