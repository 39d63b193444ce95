"""`rm` of a checkpoint that other programs are shown takes it out there, and says so; `gc` keeps what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk


@pytest.fixture
def published(tmp_path: Path) -> str:
    files = tmp_path / "files"
    files.mkdir()
    (files / "weights.bin").write_bytes(b"w" * 100_000)
    (files / "config.json").write_bytes(b"{}")
    return diachunk.publish([files], name="lab/x", copy=True, home=tmp_path / "store").id


def test_rm_takes_it_out_of_where_it_was_shown(published: str, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    diachunk.place("lab/x", into=[shown], link_mode="symlink", home=tmp_path / "store")
    assert (shown / "weights.bin").read_bytes() == b"w" * 100_000
    _, collected = diachunk.rm(["lab/x"], home=tmp_path / "store")
    assert not (shown / "weights.bin").is_symlink()
    assert any("no longer shown" in note for note in collected.notes)


def test_rm_names_what_it_leaves_there(published: str, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    diachunk.place("lab/x", into=[shown], link_mode="copy", home=tmp_path / "store")
    changed = shown / "config.json"
    changed.chmod(0o644)
    changed.write_bytes(b"{'mine': 1}")
    _, collected = diachunk.rm(["lab/x"], home=tmp_path / "store")
    assert changed.read_bytes() == b"{'mine': 1}"
    assert any(str(changed) in note for note in collected.notes)


def test_gc_keeps_what_is_shown_without_a_name(published: str, tmp_path: Path) -> None:
    home = tmp_path / "store"
    diachunk.place("lab/x", into=[tmp_path / "shown"], link_mode="symlink", home=home)
    (home / "refs" / "lab" / "x@main").unlink()
    diachunk.gc(older_than_s=0, home=home)
    assert (tmp_path / "shown" / "weights.bin").read_bytes() == b"w" * 100_000
