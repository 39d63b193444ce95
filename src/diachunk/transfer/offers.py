"""What is on this machine already and may hold wanted chunks: claims, verified like any other bytes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.limits import CHUNK_BYTES
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Selective, Source
from diachunk.sources.donors import find_donors
from diachunk.sources.local import LocalFiles
from diachunk.store.partial import Partial
from diachunk.store.store import Store
from diachunk.transfer.check import Checked
from diachunk.transfer.session import Offer


def local_offers(
    work: WorkList, partials: Sequence[Partial], stores: Iterable[Store], salvage: Sequence[Checked]
) -> list[Offer]:
    """The partials' own extents first, then every other local file that may hold wanted chunks.

    Args:
        salvage: damaged files that stay where they are, and which of their chunks were good a moment ago.
    """
    resumed = LocalFiles("what is here", len(work))
    held = [(partial, partial.claimed()) for partial in partials]
    for number, (partial, claims) in enumerate(held):
        for item in work.items_of(number) if len(claims) else ():
            if work.chunk_of(item) in claims:
                resumed.claim(item, partial.path, work.offset(item))
    held = [(partial, claims) for partial, claims in held if len(claims)]
    if held or salvage:
        items = {work.digest(item): item for item in range(len(work)) if item not in resumed.has}
        _offer_elsewhere(items, held, resumed)
        _offer_salvage(items, salvage, resumed)
    offers = [Offer(resumed, resumed.has)] if len(resumed.has) else []
    donors = find_donors(work, stores, [partial.path for partial in partials])
    return [*offers, Offer(donors, donors.has)] if donors else offers


def network_offer(source: Source, work: WorkList, but_not: Container[Digest] = ()) -> Offer:
    """What a source on the network may be asked for: all of it, unless it knows beforehand what it has.

    Args:
        but_not: files that it must not be asked for.
    """
    if not but_not and not isinstance(source, Selective):
        return Offer(source)
    has = Bitmap(len(work))
    for number, facts in enumerate(work.blobs):
        if facts.digest not in but_not and (not isinstance(source, Selective) or source.serves(facts)):
            for item in work.items_of(number):
                has.add(item)
    return Offer(source, has)


def prefix_offers(work: WorkList, prefixes: Iterable[tuple[Digest, Path]]) -> list[Offer]:
    """What other programs left unfinished. Nobody knows whether it is right before the whole is hashed."""
    source = LocalFiles("unfinished downloads", len(work))
    numbers = {facts.digest: number for number, facts in enumerate(work.blobs)}
    for key, path in prefixes:
        try:
            size = path.stat().st_size if key in numbers else 0
        except OSError:
            continue
        for item in work.items_of(numbers[key]) if size else ():
            # Its last piece may have been under way when that program stopped.
            if work.offset(item) + work.size(item) + CHUNK_BYTES <= size:
                source.claim(item, path, work.offset(item))
    return [Offer(source, source.has)] if len(source.has) else []


def _offer_elsewhere(
    items: dict[Digest, int], held: Sequence[tuple[Partial, Bitmap]], source: LocalFiles
) -> None:
    """Chunks that a partial holds and that count as another file's: that one came first in the list."""
    for partial, claims in held:
        for index in claims:
            item = items.get(partial.chunks.digest(index))
            if item is not None:
                source.claim(item, partial.path, partial.chunks.offsets[index])


def _offer_salvage(items: dict[Digest, int], salvage: Sequence[Checked], source: LocalFiles) -> None:
    """The good chunks of damaged files: the user's own, another user's, those being replaced."""
    for checked in salvage:
        chunks = checked.facts.chunks
        for index in checked.good:
            item = items.get(chunks.digest(index))
            if item is not None:
                source.claim(item, checked.path, chunks.offsets[index])
