"""A fetch that is to be placed computes the names under which other programs keep files, on the way."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.errors import Interrupted
from diachunk.manifest import encode
from diachunk.store.stamps import read_stamp
from diachunk.testing.hub import Hub

LARGE, SMALL = bytes(range(256)) * 50_000, b'{"hidden_size": 32}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add("org/repo", {"model.safetensors": LARGE, "config.json": SMALL, "empty.txt": b""})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def manifest(hub: Hub, tmp_path: Path) -> Path:
    """The repository's manifest, as another machine published it."""
    published = diachunk.publish(["hub:org/repo"], home=tmp_path / "other", out=tmp_path / "repo.json")
    assert published.file is not None
    return published.file


def test_sha256_and_git_ids_are_known_when_the_fetch_ends(manifest: Path, tmp_path: Path) -> None:
    snapshot = diachunk.fetch(manifest, names=True, home=tmp_path / "store")
    layout = Context.make(tmp_path / "store").store.layout
    found = {}
    for _, file in snapshot.manifest.walk():
        stamp = read_stamp(layout.stamp(file.blake3))
        assert stamp is not None
        found[file.path] = stamp.sha256, stamp.git
    git = subprocess.run(
        ["git", "hash-object", "--stdin"], input=SMALL, capture_output=True, check=True
    ).stdout.decode()
    assert found["model.safetensors"] == (hashlib.sha256(LARGE).hexdigest(), "")
    assert found["config.json"] == (hashlib.sha256(SMALL).hexdigest(), git.strip())


def test_they_are_not_computed_where_nobody_asked(manifest: Path, tmp_path: Path) -> None:
    snapshot = diachunk.fetch(manifest, home=tmp_path / "store")
    layout = Context.make(tmp_path / "store").store.layout
    stamps = [read_stamp(layout.stamp(file.blake3)) for _, file in snapshot.manifest.walk()]
    assert [stamp.sha256 for stamp in stamps if stamp] == ["", "", ""]


def test_a_resumed_fetch_knows_them_too(
    manifest: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_half_way(event: diachunk.Event) -> None:
        if (
            isinstance(event, diachunk.Progress)
            and event.bytes > 0
            and hub.bytes_sent("*") > len(LARGE) * 1.3
        ):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        diachunk.fetch(
            manifest, names=True, max_down_bps=20_000_000, progress=stop_half_way, home=tmp_path / "store"
        )
    snapshot = diachunk.fetch(manifest, names=True, home=tmp_path / "store")
    layout = Context.make(tmp_path / "store").store.layout
    file = next(file for _, file in snapshot.manifest.walk() if file.path == "model.safetensors")
    stamp = read_stamp(layout.stamp(file.blake3))
    assert stamp is not None
    assert stamp.sha256 == hashlib.sha256(LARGE).hexdigest()


def test_a_wrong_name_in_a_manifest_is_not_believed(manifest: Path, tmp_path: Path) -> None:
    lying = manifest.read_text().replace(hashlib.sha256(LARGE).hexdigest(), "0" * 64)
    (tmp_path / "lying.json").write_text(lying)
    snapshot = diachunk.fetch(tmp_path / "lying.json", names=True, home=tmp_path / "store")
    layout = Context.make(tmp_path / "store").store.layout
    file = next(file for _, file in snapshot.manifest.walk() if file.path == "model.safetensors")
    stamp = read_stamp(layout.stamp(file.blake3))
    assert stamp is not None
    assert stamp.sha256 == hashlib.sha256(LARGE).hexdigest()
    assert encode(snapshot.manifest).decode() == lying
