"""A partial tells who follows it."""

from __future__ import annotations

from pathlib import Path

from diachunk.store.store import Store
from store_files import CHUNKS, DIGEST, PIECES, verified, write


def test_each_chunk_is_told_once_it_is_in_place_and_no_more_when_nobody_follows(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    partial = store.blobs.open_partial(DIGEST, CHUNKS)
    try:
        write(partial, PIECES, [0])
        told: list[tuple[int, bytes]] = []

        def tell(index: int) -> None:
            told.append((index, partial.path.read_bytes()[CHUNKS.offsets[index] : CHUNKS.offsets[index + 1]]))

        partial.follow(tell)
        write(partial, PIECES, [2])
        assert partial.holds(verified(CHUNKS, 0, PIECES[0]), 0)
        assert told == [(2, PIECES[2]), (0, PIECES[0])]
        assert set(partial.present()) == {0, 2}
        partial.present().add(3)  # a copy
        assert 3 not in partial.present()
        partial.follow(None)
        write(partial, PIECES, [1])
        assert len(told) == 2
    finally:
        partial.close()
