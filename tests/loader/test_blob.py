"""One open file of a checkpoint."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.loader.blob import Blob
from diachunk.manifest import ChunkList
from diachunk.schedule.work import BlobFacts


def test_closed_by_several_at_once_it_closes_nobody_elses_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is left while its iterator ends: the number may be another file's the second time."""
    data = b"some bytes"
    path = tmp_path / "file"
    path.write_bytes(data)
    facts = BlobFacts(digest_of(data), len(data), ChunkList.of([(len(data), digest_of(data))]), "m", "file")
    blob = Blob(facts, path)
    closed: list[int] = []
    own, barrier = os.close, threading.Barrier(4)

    def slowly(fd: int) -> None:
        closed.append(fd)
        time.sleep(0.1)
        own(fd)

    def close() -> None:
        barrier.wait()
        blob.close()

    fd = blob.fd
    monkeypatch.setattr("diachunk.loader.blob.os.close", slowly)
    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(close) for _ in range(4)]:
            each.result()
    monkeypatch.undo()
    assert closed == [fd]
    blob.close()
