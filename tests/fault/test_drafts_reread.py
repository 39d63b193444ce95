"""A finished file of an unfinished recipe whose stamp was lost (stamps are not flushed) is read again, not fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.api import drafting
from diachunk.chunking.hashing import HashedFile, hash_one
from diachunk.errors import TransferIncomplete
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part

FIRST, SECOND = b"1" * 9_000_000, b"2" * 5_000_000


@pytest.fixture
def half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Hub, Path]:
    """A Hub, and a store where one of two files arrived and its stamp is gone."""
    home = tmp_path / "store"
    hub = Hub()
    hub.add("org/repo", {"a.safetensors": FIRST, "b.safetensors": SECOND})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.fail(Part.BYTES, faults.Status(404), of="b.safetensors")
    with pytest.raises(TransferIncomplete):
        diachunk.fetch("hub:org/repo", home=home)
    hub.rules.clear()
    (stamp,) = home.glob("blobs/*/*.stamp")
    stamp.unlink()
    return hub, home


def test_it_is_not_fetched_twice(half_done: tuple[Hub, Path]) -> None:
    hub, home = half_done
    with hub:
        before = hub.bytes_sent("a.safetensors")
        snapshot = diachunk.fetch("hub:org/repo", home=home)
        assert (snapshot.path("a.safetensors").read_bytes(), hub.bytes_sent("a.safetensors")) == (
            FIRST,
            before,
        )


def test_nor_believed_and_read_only_once(
    half_done: tuple[Hub, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, home = half_done
    read: list[Path] = []

    def counted(path: Path, *rest: Any, **options: Any) -> HashedFile:
        read.append(path)
        return hash_one(path, *rest, **options)

    monkeypatch.setattr(drafting, "hash_one", counted)
    with hub:
        (blob,) = (path for path in home.glob("blobs/*/*") if not path.suffix)
        blob.chmod(0o644)
        blob.write_bytes(FIRST[:-1] + b"x")
        snapshot = diachunk.fetch("hub:org/repo", home=home)
        assert (snapshot.path("a.safetensors").read_bytes(), read) == (FIRST, [blob])
