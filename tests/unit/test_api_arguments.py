"""Where several may be given, a single text or path is one, and not its letters."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk
from diachunk.errors import UsageError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "a.bin").write_bytes(b"abc")
    return directory


@pytest.fixture
def home(tmp_path: Path, files: Path) -> Path:
    home = tmp_path / "store"
    diachunk.publish([f"model={files}"], name="lab/one", home=home)
    return home


def test_one_source_is_published(tmp_path: Path, files: Path) -> None:
    sources: list[str | Path] = [str(files), files]
    for number, source in enumerate(sources):
        made = diachunk.publish(
            source, name="lab/x", origins="https://example.org/x", home=tmp_path / f"store{number}"
        )
        assert [file.path for _, file in made.manifest.walk()] == ["a.bin"]
        assert made.manifest.origins == ("https://example.org/x",)


def test_one_component_and_one_origin_are_planned_and_fetched(home: Path) -> None:
    plan = diachunk.plan("lab/one", origins="https://example.org/x", components="model", home=home)
    assert plan.origins == ("https://example.org/x",)
    assert diachunk.fetch("lab/one", components="model", home=home).directory.is_dir()
    with pytest.raises(UsageError, match="no component 'modle'"):
        diachunk.fetch("lab/one", components="modle", home=home)


def test_one_target_is_verified_adopted_and_removed(home: Path, files: Path) -> None:
    assert diachunk.verify("lab/one", home=home).ok
    shares = diachunk.adopt(files, targets="lab/one", dry_run=True, home=home).shares
    assert [share.checkpoint for share in shares] == ["lab/one@main"]
    removed, _ = diachunk.rm("lab/one", home=home)
    assert [manifest.name for manifest in removed] == ["lab/one"]
