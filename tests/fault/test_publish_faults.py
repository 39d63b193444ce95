"""Publishing what changes, collides, hides or cannot be named: all of it or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import DiachunkError, IntegrityError, ManifestError, StoreError, TrustError, UsageError
from diachunk.manifest import decode
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    tree,
)
from fixtures.watch import Told, fetch


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tree(tmp_path / "source", {"w.bin": os.urandom(9 * MIB), "sub/c.json": b"{}"})


def everything_in(home: Path) -> list[str]:
    """All that a store holds besides its own mark and empty directories."""
    files = (each for each in home.rglob("*") if each.is_symlink() or each.is_file())
    return sorted(str(each.relative_to(home)) for each in files if each.name != "store.json")


@pytest.mark.parametrize("change", ["rewrite", "grow", "shrink", "replace"])
def test_a_file_that_changes_while_it_is_published_is_refused_and_nothing_is_written(
    source: Path, home: Path, tmp_path: Path, change: str
) -> None:
    changed = False

    def meddle(event: diachunk.Event) -> None:
        nonlocal changed
        if event.bytes < MIB or changed:
            return
        changed = True
        match change:
            case "rewrite":
                with (source / "w.bin").open("r+b") as file:
                    file.write(b"other")
            case "grow":
                with (source / "w.bin").open("ab") as file:
                    file.write(b"more")
            case "shrink":
                os.truncate(source / "w.bin", 5 * MIB)
            case _:
                shutil.copy(source / "w.bin", tmp_path / "new")
                os.replace(tmp_path / "new", source / "w.bin")

    with pytest.raises(IntegrityError, match=r"w\.bin changed while it was read") as caught:
        diachunk.publish([source], name="lab/x", home=home, out=tmp_path / "x.json", progress=meddle)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "x.json").exists()
    assert everything_in(home) == []


def test_progress_while_publishing_adds_up(source: Path, home: Path) -> None:
    told = Told()
    diachunk.publish([source], name="lab/x", home=home, progress=told)
    assert told.total_bytes == 9 * MIB + 2


def test_a_name_that_stands_for_something_else_is_kept_until_forced(source: Path, home: Path) -> None:
    first = diachunk.publish([source], name="lab/x", home=home)
    (source / "sub/c.json").write_bytes(b"[]")
    before = everything_in(home)
    with pytest.raises(TrustError, match="already stands for") as caught:
        diachunk.publish([source], name="lab/x", home=home)
    assert caught.value.exit_code == 7
    assert everything_in(home) == before
    assert diachunk.show("lab/x", home=home)[0].hex_id == first.id
    second = diachunk.publish([source], name="lab/x", home=home, force=True)
    assert diachunk.show("lab/x", home=home)[0].hex_id == second.id != first.id
    assert diachunk.show(first.id, home=home)[0].hex_id == first.id


def test_copied_files_live_on_in_the_store(source: Path, home: Path, tmp_path: Path) -> None:
    done = diachunk.publish([source], name="lab/x", home=home, out=tmp_path / "x.json", copy=True)
    shutil.copytree(source, tmp_path / "original")
    shutil.rmtree(source)
    checkpoint = Checkpoint(tmp_path / "original", tmp_path / "x.json", done.manifest)
    assert_store_is_right(home)
    assert len(blobs_of(home)) == 2
    assert {each.stat().st_mode & 0o777 for each in blobs_of(home)} == {0o444}
    assert_same_files(fetch("lab/x", home=home).snapshot.directory, checkpoint)
    assert not [each for each in everything_in(home) if "ingest" in each]


def test_copying_what_is_there_already_is_fine(source: Path, home: Path) -> None:
    first = diachunk.publish([source], name="lab/x", home=home, copy=True)
    again = diachunk.publish([source], name="lab/x", home=home, copy=True)
    assert again.id == first.id
    assert len(blobs_of(home)) == 2
    assert_store_is_right(home)


def test_without_a_store_nothing_but_the_manifest_is_written(
    source: Path, home: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.json"
    done = diachunk.publish([source], name="lab/x", out=out, store=False, home=home)
    assert decode(out.read_bytes()).hex_id == done.id
    assert not home.exists()
    assert list(base.iterdir()) == []
    assert sorted(each.name for each in source.rglob("*")) == ["c.json", "sub", "w.bin"]


def test_hidden_files_and_linked_directories_are_left_out_and_said(
    source: Path, home: Path, tmp_path: Path
) -> None:
    tree(source, {".git/config": b"x", "sub/.cache": b"y", ".DS_Store": b"z"})
    (tmp_path / "elsewhere").mkdir()
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    done = diachunk.publish([source], name="lab/x", home=home)
    assert {file.path for _, file in done.manifest.walk()} == {"w.bin", "sub/c.json"}
    assert set(done.left_out) == {
        source / ".git",
        source / "sub" / ".cache",
        source / ".DS_Store",
        source / "linked",
    }


def test_the_same_bytes_have_the_same_id_anywhere_and_any_time(
    source: Path, home: Path, tmp_path: Path
) -> None:
    first = diachunk.publish([source], name="lab/x", home=home)
    again = diachunk.publish([source], name="lab/x", home=home)
    other = tmp_path / "a" / "different place"
    shutil.copytree(source, other)
    os.utime(other / "w.bin", (1, 1))
    elsewhere = diachunk.publish([f"{other}/"], name="lab/x", store=False, origins=["https://example.org/x"])
    assert first.id == again.id == elsewhere.id


def test_what_was_published_is_the_file_and_not_its_link(source: Path, home: Path, tmp_path: Path) -> None:
    (source / "w2.bin").symlink_to(source / "w.bin")
    done = diachunk.publish([source], name="lab/x", home=home)
    digests = {file.path: file.blake3 for _, file in done.manifest.walk()}
    assert digests["w2.bin"] == digests["w.bin"]


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "../x", "/x", "a b", "ü", "x" * 97, "-x", ".x", "a/", "x@y@z", "a\nb", "\u202ex"]
)
def test_a_name_that_is_none_is_refused(source: Path, home: Path, name: str) -> None:
    with pytest.raises(DiachunkError) as caught:
        diachunk.publish([source], name=name, home=home)
    assert caught.value.exit_code in (2, 3)
    assert str(caught.value).isprintable()
    assert not home.exists() or everything_in(home) == []


@pytest.mark.parametrize("file", ["a:b", "back\\slash", "new\nline", "tab\t", "Ünicode\u202e"])
def test_a_file_name_that_cannot_stand_in_a_manifest_is_refused_before_anything_is_kept(
    tmp_path: Path, home: Path, file: str
) -> None:
    source = tree(tmp_path / "source", {"good.bin": b"good", file: b"bad"})
    with pytest.raises((ManifestError, UsageError)) as caught:
        diachunk.publish([source], name="lab/x", home=home)
    assert str(caught.value).isprintable()
    assert everything_in(home) == []


def test_a_file_name_that_is_no_text_is_refused_in_one_line(tmp_path: Path, home: Path) -> None:
    source = tree(tmp_path / "source", {"good.bin": b"good"})
    with open(os.fsencode(source) + b"/bad-\xff.bin", "wb") as file:
        file.write(b"bad")
    with pytest.raises((ManifestError, UsageError)) as caught:
        diachunk.publish([source], name="lab/x", home=home)
    assert str(caught.value).isprintable()
    str(caught.value).encode()
    assert not home.exists() or everything_in(home) == []


def test_two_names_that_are_one_where_case_does_not_count_are_refused(tmp_path: Path, home: Path) -> None:
    source = tree(tmp_path / "source", {"Model.bin": b"1", "model.bin": b"2"})
    if len(list(source.iterdir())) == 1:
        pytest.skip("this file system folds case")
    with pytest.raises(ManifestError):
        diachunk.publish([source], name="lab/x", home=home)
    assert everything_in(home) == []


@pytest.mark.parametrize("what", ["missing", "empty", "fifo", "dangling"])
def test_what_is_no_file_is_refused(tmp_path: Path, home: Path, what: str) -> None:
    path = tmp_path / "source"
    if what == "empty":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "dangling":
        path.mkdir()
        (path / "link.bin").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError):
        diachunk.publish([path], name="lab/x", home=home)


def test_one_path_from_two_sources_is_refused(tmp_path: Path, home: Path) -> None:
    one, two = (tree(tmp_path / each, {"w.bin": each.encode()}) for each in ("one", "two"))
    with pytest.raises(UsageError, match=r"two files for m: w\.bin"):
        diachunk.publish([f"m={one}", f"m={two}"], name="lab/x", home=home)


def test_a_manifest_that_cannot_be_written_is_one_clear_line(
    source: Path, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        diachunk.publish([source], name="lab/x", home=home, out=tmp_path / "none" / "x.json")


def test_an_adopted_file_keeps_its_mode_and_time(source: Path, home: Path) -> None:
    (source / "w.bin").chmod(0o600)
    before = (source / "w.bin").stat()
    diachunk.publish([source], name="lab/x", home=home)
    fetch("lab/x", home=home)
    diachunk.verify(["lab/x"], home=home)
    after = (source / "w.bin").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ino, after.st_nlink) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_ino,
        before.st_nlink,
    )
