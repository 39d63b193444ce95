"""What is said to somebody who named what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk
from diachunk.errors import UsageError
from fixtures.checkpoints import tree


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "store"


def refused(target: str, home: Path) -> str:
    with pytest.raises(UsageError, match="nothing here is called") as caught:
        diachunk.verify(target, home=home)
    return caught.value.hint


def test_an_empty_store_says_what_can_be_fetched(home: Path) -> None:
    hint = refused("nope", home)
    assert hint.startswith("no checkpoints here yet; `diachunk fetch NAME`")
    assert "dia-1.6b" in hint


def test_a_store_of_what_has_no_name_says_so(home: Path, tmp_path: Path) -> None:
    root = tree(tmp_path / "files", {"a.bin": b"x" * 1000})
    diachunk.publish(root, name="lab/x", store=False, out=tmp_path / "lab.json", home=tmp_path / "other")
    diachunk.fetch(tmp_path / "lab.json", home=home, origins=[str(root)])
    assert diachunk.ls(home=home).held[0].names == ()
    assert refused("nope", home) == "what is here has no name; `diachunk ls` lists the ids"


def test_files_of_ones_own_are_to_be_published(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree(tmp_path / "work", {"models/a.bin": b"x"}))
    hint = refused("models", home)
    assert hint == "of files of your own: `diachunk publish models --name ORG/NAME`"
