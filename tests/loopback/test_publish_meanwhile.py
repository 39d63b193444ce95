"""A recipe's files are published while they are fetched: what was written is read back once, and never again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.testing.hub import Hub

FILES = {
    "model.safetensors": bytes(range(256)) * 60_000,
    "weights.bin": b"w" * 9_000_001,
    "config.json": b"{}",
}
TOTAL = sum(map(len, FILES.values()))


@pytest.mark.parametrize("verb", ["fetch", "publish"])
def test_every_byte_is_read_once(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = os.preadv

    def counted(fd: int, buffers: Sequence[Any], offset: int) -> int:
        size = real(fd, buffers, offset)
        read.append(size)
        return size

    with Hub() as hub:
        hub.add("org/repo", FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(os, "preadv", counted)
        if verb == "fetch":
            diachunk.fetch("hub:org/repo", home=tmp_path / "store")
        else:
            diachunk.publish(["hub:org/repo"], home=tmp_path / "store")
        assert (sum(read), hub.bytes_sent("*")) == (TOTAL, TOTAL)
