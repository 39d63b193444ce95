"""What a load wants first of a fetch that is under way: headers at once, then chunks in the order of the tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from diachunk.digest import Digest
from diachunk.schedule.work import WorkList
from diachunk.transfer.assemble import Hasten

_PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_END_BYTES = 128 * 1024
"""A zip file's directory is looked for in the last 64 KiB; of 300 tensors it has 20."""
_SMALL_BYTES = 64 * 1024
_SMALL_MOST = 4096
"""Each of them is a request by itself. With more of them the file's own order is not slower."""


class Wishes:
    """`transfer.assemble.First` of one load. A fetch may have several sessions: each hears all that was wished for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wished: dict[Digest, None] = {}
        self._session: tuple[WorkList, Hasten] | None = None
        self._items: dict[Digest, int] = {}

    def __call__(self, work: WorkList, hasten: Hasten) -> Iterable[int]:
        items = {work.digest(item): item for item in range(len(work))}
        with self._lock:
            self._session, self._items = (work, hasten), items
            wished = list(self._wished)
        return [*headers_first(work), *(items[digest] for digest in wished if digest in items)]

    def add(self, digests: Sequence[Digest]) -> None:
        """These chunks are wanted, in this order, after what was wished for before."""
        with self._lock:
            self._wished.update(dict.fromkeys(digests))
            items, session = self._items, self._session
        if session is not None:
            session[1]([items[digest] for digest in digests if digest in items])


def headers_first(work: WorkList) -> Iterator[int]:
    """What the loader cannot do without: the indexes of shards, the beginning of each safetensors file, and of a
    PyTorch file its pickle, its directory, and the header before each storage, which lie in small chunks between those
    of the tensors.
    """
    for number, blob in enumerate(work.blobs):
        items = work.items_of(number)
        if blob.path.endswith(".index.json"):
            yield from items
        elif blob.path.endswith(".safetensors"):
            yield from items[:1]
        elif blob.path.endswith(_PICKLED):
            yield from _between_storages(work, items, blob.size)


def _between_storages(work: WorkList, items: range, size: int) -> Iterator[int]:
    yield from (item for item in items if work.offset(item) + work.size(item) > size - _END_BYTES)
    yield from items[:1]
    small = [item for item in items if work.size(item) < _SMALL_BYTES]
    if len(small) <= _SMALL_MOST:
        yield from small
