"""What a fetch would do, before it does anything: bytes to fetch, to reuse, disk needed. Reads no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.manifest import Manifest
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.donors import find_donors
from diachunk.store.partial import read_claims
from diachunk.store.store import Store
from diachunk.transfer.destination import Destination


@dataclass(frozen=True, slots=True)
class ComponentPlan:
    """One component's share. Bytes complete here, to reuse from local files, and to fetch."""

    name: str
    files: int
    total_bytes: int
    present_bytes: int
    reuse_bytes: int
    fetch_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What `fetch` would do. What is reused is a claim until it is hashed, so `fetch_bytes` can grow.

    Attributes:
        total_bytes: of all files, equal files counted once; the sum of a fetch's progress deltas.
        disk_bytes: further disk space needed; `free_bytes` is what there is.
        directory: where the checkpoint will be.
        by_name: whether the target was a name, which fetching then makes stand for this manifest.
        url: where the manifest was fetched from, or "".
    """

    manifest: Manifest
    components: tuple[ComponentPlan, ...]
    disk_bytes: int
    free_bytes: int
    directory: Path
    origins: tuple[str, ...]
    by_name: bool = False
    url: str = ""

    @property
    def total_bytes(self) -> int:
        return sum(each.total_bytes for each in self.components)

    @property
    def present_bytes(self) -> int:
        return sum(each.present_bytes for each in self.components)

    @property
    def reuse_bytes(self) -> int:
        return sum(each.reuse_bytes for each in self.components)

    @property
    def fetch_bytes(self) -> int:
        return sum(each.fetch_bytes for each in self.components)


def plan_components(
    store: Store, destination: Destination, files: Sequence[BlobFacts], lower: Sequence[Store] = ()
) -> tuple[tuple[ComponentPlan, ...], int]:
    """Returns the components' plans and the disk space needed, in bytes."""
    missing = [facts for facts in files if destination.find(facts).path is None]
    work = WorkList(missing)
    held = _held_items(work, destination)
    donors = find_donors(work, (store, *lower))
    disk = 0
    sums: dict[str, list[int]] = {}
    for facts in files:
        row = sums.setdefault(facts.component, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1] += facts.size
        row[2] += facts.size
    for number, facts in enumerate(missing):
        row = sums[facts.component]
        row[2] -= facts.size
        own = sum(work.size(item) for item in work.items_of(number) if item in held)
        reuse = own + sum(
            work.size(item)
            for item in work.items_of(number)
            if item not in held and donors is not None and item in donors.has
        )
        fetch = sum(work.size(item) for item in work.items_of(number)) - reuse
        row[3] += facts.size - fetch
        row[4] += fetch
        disk += facts.size - own
    return tuple(ComponentPlan(name, *row) for name, row in sums.items()), disk


def _held_items(work: WorkList, destination: Destination) -> set[int]:
    """Items that an earlier, unfinished run may have left in the partials."""
    held: set[int] = set()
    for number, facts in enumerate(work.blobs):
        claims = read_claims(destination.partial(facts), facts.chunks)
        held.update(item for item in work.items_of(number) if work.chunk_of(item) in claims)
    return held
