"""Loading while fetching: which chunks of files that are still being filled may be there.

A partial's allocated extents are claims, as they are for a resume: the lanes verify what they read, and what does not
match yet is tried again. So it does not matter who fetches, this process or a neighbour.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.errors import StoreError
from diachunk.loader.blob import Blob
from diachunk.schedule.work import BlobFacts
from diachunk.store.extents import read_claims

Find = Callable[[BlobFacts], tuple[Path, bool] | None]
"""Where a file lies now, and whether it is complete; None if nothing of it is here."""


class Fetch(Protocol):
    """The fetch that is under way."""

    @property
    def over(self) -> bool: ...

    def tick(self) -> None:
        """See `feed.Arrivals.tick`."""
        ...

    def hasten(self, chunks: Sequence[Digest]) -> None:
        """These are wanted before others, in this order."""
        ...


class Following:
    """`feed.Arrivals` over files of which some are complete. Puts another blob into the list when a file is started
    over, or completed by somebody else; those that it replaces stay open until the end.
    """

    def __init__(self, blobs: list[Blob], find: Find, fetch: Fetch) -> None:
        self._blobs = blobs
        self._find = find
        self._fetch = fetch
        self._lock = threading.Lock()
        self._whole = {number for number, blob in enumerate(blobs) if blob.trusted}
        self._claims: dict[int, Bitmap] = {}
        self._replaced: list[Blob] = []

    @property
    def over(self) -> bool:
        return self._fetch.over

    def tick(self) -> None:
        self._fetch.tick()

    def hasten(self, chunks: Iterable[tuple[int, int]]) -> None:
        self._fetch.hasten(
            [
                self._blobs[file].facts.chunks.digest(chunk)
                for file, chunk in chunks
                if file not in self._whole
            ]
        )

    def look(self) -> None:
        over = self._fetch.over
        with self._lock:
            for number, blob in enumerate(self._blobs):
                if number in self._whole:
                    continue
                found = self._find(blob.facts)
                if found is None:
                    continue
                path, complete = found
                if self._follow(number, path) and complete and over:
                    self._whole.add(number)
                chunks = blob.facts.chunks
                self._claims[number] = Bitmap.full(len(chunks)) if complete else read_claims(path, chunks)

    def _follow(self, number: int, path: Path) -> bool:
        """Whether the blob in the list is the file that lies there now."""
        blob = self._blobs[number]
        try:
            now = os.stat(path)
            if (now.st_dev, now.st_ino) != (blob.opened_as.st_dev, blob.opened_as.st_ino):
                self._blobs[number] = Blob(blob.facts, path)
                self._replaced.append(blob)
        except (OSError, StoreError):
            return False  # renamed this very moment: the next look finds it
        return True

    def may_have(self, file: int, chunk: int) -> bool:
        with self._lock:
            return file in self._whole or chunk in self._claims.get(file, ())

    def close(self) -> None:
        """Closes what was replaced."""
        for blob in self._replaced:
            blob.close()
