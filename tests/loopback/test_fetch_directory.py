"""`to`: a checkpoint's files in a directory that the user named, and nothing else of the user's touched."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import StoreError
from diachunk.schedule.work import BlobFacts
from diachunk.store.store import Store
from diachunk.testing.servers import Nginx
from diachunk.transfer.destination import DirectoryDestination
from fixtures.checkpoints import Checkpoint, assert_same_files, published, tree
from fixtures.watch import Told, fetch

pytestmark = pytest.mark.loopback


class Enough(Exception):
    """Raised by a callback."""


SHARD = "model/model-00002-of-00003.safetensors"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "dia"


def test_files_lie_under_their_component_as_plain_files(small: Checkpoint, home: Path, target: Path) -> None:
    done = fetch(small, str(small.root), home=home, to=target)
    assert done.snapshot.directory == target == done.plan.directory
    assert_same_files(target, small)
    assert not any(each.is_symlink() for each in target.rglob("*"))
    assert not any((home / "blobs").glob("??/*"))
    assert {stat.S_IMODE(each.stat().st_mode) for each in target.rglob("*.*")} == {0o644}


def test_files_of_an_unnamed_component_lie_directly_in_it(tmp_path: Path, home: Path, target: Path) -> None:
    plain = published(
        tree(tmp_path / "plain", {"w.bin": b"w" * 100, "sub/c.json": b"{}", "sub/d.json": b"{}"})
    )
    fetch(plain, str(plain.root), home=home, to=target)
    assert_same_files(target, plain)


def test_fetching_into_it_again_transfers_nothing(small: Checkpoint, home: Path, target: Path) -> None:
    with Nginx(small.root) as origin:
        fetch(small, origin.url, home=home, to=target)
        asked = len(origin.requests())
        again = fetch(small, origin.url, home=home, to=target)
        assert len(origin.requests()) == asked
    assert again.report.present_bytes == small.total_bytes


def test_a_right_file_that_was_there_is_kept_and_not_fetched(
    small: Checkpoint, home: Path, target: Path
) -> None:
    (target / "model").mkdir(parents=True)
    shutil.copy(small.file(SHARD), target / SHARD)
    (target / SHARD).chmod(0o640)
    before = (target / SHARD).stat()
    with Nginx(small.root) as origin:
        fetch(small, origin.url, home=home, to=target)
        assert f"/{SHARD}" not in {each.path for each in origin.requests()}
    after = (target / SHARD).stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert_same_files(target, small)


@pytest.mark.parametrize("content", [b"my own notes", None])
def test_a_different_file_is_refused_and_left_alone(
    small: Checkpoint, home: Path, target: Path, content: bytes | None
) -> None:
    (target / "model").mkdir(parents=True)
    mine = content or bytes(small.file(SHARD).stat().st_size)
    (target / SHARD).write_bytes(mine)
    with pytest.raises(StoreError, match="--force") as caught:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target)
    assert SHARD in caught.value.message
    assert (target / SHARD).read_bytes() == mine


@pytest.mark.parametrize("content", [b"my own notes", None])
def test_force_replaces_a_different_file(
    small: Checkpoint, home: Path, target: Path, content: bytes | None
) -> None:
    (target / "model").mkdir(parents=True)
    (target / SHARD).write_bytes(content or bytes(small.file(SHARD).stat().st_size))
    fetch(small, str(small.root), home=home, to=target, force=True)
    assert_same_files(target, small)


def test_files_that_diachunk_put_there_are_replaced_by_another_version_without_force(
    tmp_path: Path, home: Path, target: Path
) -> None:
    first = published(tree(tmp_path / "v1", {"m/w.bin": os.urandom(9_000_000), "m/c.json": b"1"}))
    second = published(
        tree(tmp_path / "v2", {"m/w.bin": os.urandom(9_000_000), "m/c.json": b"22"}), revision="v2"
    )
    fetch(first, str(first.root), home=home, to=target)
    fetch(second, str(second.root), home=home, to=target)
    assert_same_files(target, second)


def test_an_earlier_directory_is_a_donor(small: Checkpoint, home: Path, target: Path, tmp_path: Path) -> None:
    fetch(small, str(small.root), home=home, to=target)
    again = fetch(small, home=home, to=tmp_path / "second")
    assert (again.report.fetched_bytes, again.plan.fetch_bytes) == (0, 0)
    assert_same_files(tmp_path / "second", small)
    into_store = fetch(small, home=home)
    assert into_store.report.fetched_bytes == 0
    assert_same_files(into_store.snapshot.directory, small)


def test_equal_files_are_fetched_once_and_each_lies_in_its_place(
    tmp_path: Path, home: Path, target: Path
) -> None:
    data = os.urandom(5_000_000)
    files = {"a/x.bin": data, "a/y.bin": data, "b/x.bin": data, "b/empty": b""}
    checkpoint = published(tree(tmp_path / "served", files))
    with Nginx(checkpoint.root) as origin:
        done = fetch(checkpoint, origin.url, home=home, to=target)
        assert origin.bytes_sent() == len(data)
    assert done.plan.total_bytes == 3 * len(data)
    assert_same_files(target, checkpoint)


@pytest.mark.parametrize("where", ["model", SHARD])
def test_nothing_is_written_through_a_link_in_the_way(
    small: Checkpoint, home: Path, target: Path, tmp_path: Path, where: str
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "weights").write_bytes(b"precious")
    (target / where).parent.mkdir(parents=True)
    (target / where).symlink_to(mine if where == "model" else mine / "weights")
    with pytest.raises(StoreError) as caught:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target, force=True)
    assert str(target / where) in caught.value.message
    assert [each.name for each in mine.iterdir()] == ["weights"]
    assert (mine / "weights").read_bytes() == b"precious"


def test_nothing_is_written_through_a_link_where_the_partial_would_lie(
    small: Checkpoint, home: Path, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (target / "model").mkdir(parents=True)
    file = next(file for _, file in small.manifest.walk() if f"model/{file.path}" == SHARD)
    facts = BlobFacts(file.blake3, file.size, file.chunks, "model", Path(SHARD).name)
    name = DirectoryDestination(Store.open(home), target).partial(facts).name
    (target / "model" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="link"):
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_file_where_a_directory_should_be_is_one_clear_line(
    small: Checkpoint, home: Path, target: Path
) -> None:
    target.mkdir(parents=True)
    (target / "model").write_text("a file")
    with pytest.raises(StoreError) as caught:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target)
    assert str(target / "model") in caught.value.message
    assert (target / "model").read_text() == "a file"


def test_an_unfinished_directory_is_resumed(small: Checkpoint, home: Path, target: Path) -> None:
    told = Told()

    def stop_after_a_third(event: diachunk.Event) -> None:
        told(event)
        if told.total_bytes > small.total_bytes / 3:
            raise Enough

    with Nginx(small.root, rate_bps=3_000_000) as slow, pytest.raises(Enough):
        diachunk.fetch(small.target, origins=[slow.url], home=home, to=target, progress=stop_after_a_third)
    assert not (target / SHARD).exists()
    with Nginx(small.root) as origin:
        done = fetch(small, origin.url, home=home, to=target)
        assert done.report.reused_bytes + done.report.present_bytes > 0
        assert origin.bytes_sent() == done.report.fetched_bytes < small.total_bytes
    assert_same_files(target, small)


@pytest.mark.parametrize("what", ["file", "link"])
@pytest.mark.parametrize("where", ["out/dia/model", "out", "out/dia"])
def test_a_file_where_a_directory_belongs_is_named_with_what_to_do(
    small: Checkpoint, home: Path, tmp_path: Path, target: Path, where: str, what: str
) -> None:
    blocking = tmp_path / where
    blocking.parent.mkdir(parents=True, exist_ok=True)
    if what == "file":
        blocking.write_text("mine")
    else:
        blocking.symlink_to("nowhere")
    with pytest.raises(StoreError) as caught:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target)
    assert f"{blocking} is in the way and no directory" in caught.value.message
    assert caught.value.hint == "move it, or name another directory with --to; then run again"
    assert blocking.is_symlink() or blocking.read_text() == "mine"


def test_a_directory_where_a_file_belongs_is_named_with_what_to_do(
    small: Checkpoint, home: Path, target: Path
) -> None:
    (target / SHARD).mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        diachunk.fetch(small.target, origins=[str(small.root)], home=home, to=target)
    assert f"{target / SHARD} is in the way and no regular file" in caught.value.message
    assert caught.value.hint == "move it, then run again"


def test_many_directories_do_not_use_up_file_descriptors(tmp_path: Path, home: Path, target: Path) -> None:
    checkpoint = published(
        tree(tmp_path / "served", {f"m/{number}/w": b"w%d" % number for number in range(300)})
    )
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    fetch(checkpoint, str(checkpoint.root), home=home, to=target)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 8
    assert_same_files(target, checkpoint)


def test_a_plan_for_a_directory_makes_none(small: Checkpoint, home: Path, target: Path) -> None:
    planned = diachunk.plan(small.target, home=home, to=target)
    assert planned.fetch_bytes == small.total_bytes
    assert not target.exists()


def test_it_is_verified_where_it_lies(small: Checkpoint, home: Path, target: Path) -> None:
    fetch(small, str(small.root), home=home, to=target)
    report = diachunk.verify([small.target], directory=target, home=home)
    assert report.ok
    assert report.checked_bytes == small.total_bytes
