"""Opening a store: made where nothing is, and refused in one line where something else is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.errors import StoreError
from diachunk.store.files import Files, read_small
from diachunk.store.layout import Layout
from diachunk.store.store import Store
from store_files import PIECES, keep, leftovers, listing, manifest_of

OPEN_AS_NOBODY = """
import os, sys
from pathlib import Path
from diachunk.errors import StoreError
from diachunk.store.store import Store
from diachunk.store.layout import Layout
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    store = Store.open(Path(sys.argv[1]), create=sys.argv[2] == "create")
except StoreError as error:
    print(error.errno, error)
else:
    print("open", store.catalog.refs())
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may enter and only its owner write (tmp_path is closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="diachunk-test-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def open_as_nobody(path: Path, how: str = "create") -> str:
    done = subprocess.run([sys.executable, "-c", OPEN_AS_NOBODY, path, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("existing", [False, True])
def test_a_store_is_made_where_nothing_is_and_opened_again(tmp_path: Path, existing: bool) -> None:
    root = tmp_path / "deep" / "store"
    if existing:
        root.mkdir(parents=True)
    first = Layout.open(root)
    second = Layout.open(root, create=False)
    assert first.store_id == second.store_id
    assert len(bytes.fromhex(first.store_id)) == 8
    assert not leftovers(root)


def test_two_stores_have_two_ids(tmp_path: Path) -> None:
    assert Layout.open(tmp_path / "a").store_id != Layout.open(tmp_path / "b").store_id


def test_a_creation_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "refs").mkdir()
    (tmp_path / ".store.json.1234.tmp").write_bytes(b"{")
    assert Layout.open(tmp_path).store_id


def test_a_store_made_by_another_process_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Layout.open(tmp_path)
    reads: list[Path] = []

    def not_yet_there(path: Path, limit_bytes: int) -> bytes | None:
        reads.append(path)
        return None if len(reads) == 1 else read_small(path, limit_bytes)

    monkeypatch.setattr("diachunk.store.layout.read_small", not_yet_there)
    assert Layout.open(tmp_path).store_id == other.store_id


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreError, match="is not a directory"):
        Layout.open(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        Layout.open(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_directory_with_other_things_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"not a diachunk store: it holds thesis\.tex"):
        Layout.open(tmp_path)
    assert list(listing(tmp_path)) == ["thesis.tex"]


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Layout.open(tmp_path / "none", create=False)
    with pytest.raises(StoreError, match="is not a diachunk store"):
        Layout.open(tmp_path, create=False)
    assert not listing(tmp_path)


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "{",
        "[]",
        "5",
        "{}",
        '{"diachunk_store": 1}',
        '{"diachunk_store": "x", "store_id": "a"}',
        '{"diachunk_store": Infinity, "store_id": "a"}',
        "[" * 4000,
    ],
)
def test_a_damaged_mark_is_refused_and_kept(tmp_path: Path, mark: str) -> None:
    Layout.open(tmp_path)
    (tmp_path / "store.json").write_text(mark)
    with pytest.raises(StoreError, match="damaged"):
        Layout.open(tmp_path)
    assert (tmp_path / "store.json").read_text() == mark


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Layout.open(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"diachunk_store": 2, "store_id": "a", "more": []}))
    with pytest.raises(StoreError, match="newer diachunk") as caught:
        Layout.open(tmp_path)
    assert "upgrade" in caught.value.hint


def test_where_a_user_may_not_write_the_store_is_refused_with_what_to_do(public: Path) -> None:
    (public / "empty").mkdir()
    for path in (public / "none", public / "empty"):
        said = open_as_nobody(path)
        assert said.startswith("13 cannot "), said
        assert "DIACHUNK_HOME" in said
    assert not list((public / "empty").iterdir())


def test_a_directory_that_may_not_even_be_entered_is_refused(public: Path) -> None:
    (public / "closed").mkdir(mode=0o700)
    if os.geteuid() != 0:
        (public / "closed").chmod(0)
    assert open_as_nobody(public / "closed" / "store").startswith("13 cannot open the store")


def test_a_read_only_store_can_be_read(public: Path) -> None:
    store = Store.open(public / "store")
    manifest = manifest_of("lab/a", {"model/a.bin": PIECES})
    keep(store, manifest, {"": PIECES})
    if os.geteuid() != 0:
        (public / "store").chmod(0o555)
    assert open_as_nobody(public / "store", "read").startswith("open [Ref(name='lab/a'")


def test_everything_takes_group_and_mode_from_the_root_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "site"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        store = Store.open(root)
        keep(store, manifest_of("lab/a", {"model/deep/a.bin": PIECES}), {"": PIECES})
        partial = store.blobs.open_partial(
            bytes(32), manifest_of("x", {"m/b": PIECES}).components[0].files[0].chunks
        )
        partial.close()
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(mode) for name, (mode, _, link) in listing(root).items() if not link}
    blobs = {name for name in modes if name.startswith("blobs/") and len(name) == len("blobs/ab/") + 64}
    assert len(blobs) == 1
    assert {modes[name] for name in blobs} == {0o444}
    assert {modes[name] for name in modes if (root / name).is_dir()} == {0o2775}
    assert {modes[name] for name in modes if (root / name).is_file() and name not in blobs} == {0o664}


def test_a_private_root_makes_private_blobs(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    store = Store.open(tmp_path)
    keep(store, manifest_of("lab/a", {"model/a.bin": PIECES}), {"": PIECES})
    assert {mode & 0o077 for mode, _, link in listing(tmp_path).values() if not link} == {0}


class NoRename(Files):
    def rename(self, source: Path, target: Path, *, dir_fd: int | None = None) -> None:
        raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(StoreError, match="No space left"):
        NoRename().replace_text(tmp_path / "f", b"new")
    with pytest.raises(StoreError, match="No space left"):
        NoRename().replace_link(tmp_path / "f", "elsewhere")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert list(listing(tmp_path)) == ["f"]


def test_a_store_whose_mark_is_gone_gets_a_new_one_also_where_something_was_placed(tmp_path: Path) -> None:
    layout = Layout.open(tmp_path / "store")
    (layout.root / "placed").mkdir()
    (layout.root / "store.json").unlink()
    assert Layout.open(layout.root).store_id != layout.store_id


def test_small_files_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    os.mkfifo(tmp_path / "fifo")
    assert read_small(tmp_path / "f", 100) == b"x" * 100
    assert read_small(tmp_path / "f", 99) is None
    assert read_small(tmp_path / "none", 99) is None
    assert read_small(tmp_path, 99) is None
    assert read_small(tmp_path / "fifo", 99) is None
