"""What a fetch would do, before it does anything: bytes to fetch, to reuse, disk needed. Reads no data."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.manifest import Manifest
from diachunk.manifest.recipe import Recipe
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.donors import find_donors
from diachunk.store.extents import allocated, read_claims
from diachunk.store.store import Store
from diachunk.transfer.destination import Destination


@dataclass(frozen=True, slots=True)
class ComponentPlan:
    """One component's share. The three parts add up to `total_bytes`, as far as claims of local files hold.

    Attributes:
        name: "" of a manifest with one component without a name.
        files: how many; where equal files are one (in a store), those of the component that has them first.
        total_bytes: of these files.
        present_bytes: proven and in place already.
        reuse_bytes: here in other files, by what is claimed of those; read and verified before they count.
        fetch_bytes: of neither: these come over the network.
    """

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
        manifest: what it fetches; None for a recipe whose chunks are not known yet (`draft`).
        stated: what upstream says of such a recipe; None otherwise.
        recipe: the recipe itself, or the part of it that was chosen; also where the manifest of that is known.
        components: the same figures, one component at a time.
        total_bytes: of all files, equal files counted once; the sum of a fetch's progress deltas.
        present_bytes: of these, proven and in place; `reuse_bytes`: here, in other files; `fetch_bytes`: neither.
        origins: what would be asked, those of the caller first.
        disk_bytes: further disk space needed; `free_bytes` is what there is.
        directory: where the checkpoint will be.
        by_name: whether the target was a name, which fetching then makes stand for this manifest.
        url: where the manifest was fetched from, or "".
        moves_name: the name stands for another manifest here, and a trusted machine has this one for it.
    """

    manifest: Manifest | None
    components: tuple[ComponentPlan, ...]
    disk_bytes: int
    free_bytes: int
    directory: Path
    origins: tuple[str, ...]
    by_name: bool = False
    url: str = ""
    stated: StatedCheckpoint | None = None
    recipe: Recipe | None = None
    moves_name: bool = False

    @property
    def draft(self) -> bool:
        """Whether the chunks, and so the id, are known only once it was fetched."""
        return self.manifest is None

    @property
    def _named(self) -> Manifest | StatedCheckpoint:
        named = self.manifest or self.stated
        assert named is not None
        return named

    @property
    def name(self) -> str:
        return self._named.name

    @property
    def revision(self) -> str:
        return self._named.revision

    @property
    def ref(self) -> str:
        """NAME@REVISION."""
        return self._named.ref

    @property
    def hex_id(self) -> str:
        """The manifest's id; "" for a draft."""
        return self.manifest.hex_id if self.manifest else ""

    @property
    def upstreams(self) -> dict[str, dict[str, Any]]:
        """Where each component comes from, as far as that is stated."""
        return {each.name: dict(each.upstream) for each in self._named.components if each.upstream}

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
    claims = [read_claims(destination.partial(facts), facts.chunks) for facts in missing]
    elsewhere = _held_elsewhere(work, claims)
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
        own = reuse = 0
        for item in work.items_of(number):
            if work.chunk_of(item) in claims[number]:
                own += work.size(item)
            elif item in elsewhere or (donors is not None and item in donors.has):
                reuse += work.size(item)
        reuse += own
        fetch = sum(work.size(item) for item in work.items_of(number)) - reuse
        row[3] += facts.size - fetch
        row[4] += fetch
        disk += facts.size - own
    return tuple(ComponentPlan(name, *row) for name, row in sums.items()), disk


def plan_stated(
    store: Store, stated: StatedCheckpoint, present: Set[Digest], local: Set[Digest]
) -> tuple[tuple[ComponentPlan, ...], int]:
    """The same for a recipe whose chunks are not known.

    Args:
        present: keys of files that are known to be here.
        local: keys of files of which a candidate lies on this machine.
    """
    disk = 0
    sums: dict[str, list[int]] = {}
    for file in {file.key: file for file in stated.walk()}.values():
        row = sums.setdefault(file.component, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1] += file.size
        if file.key in present:
            row[2] += file.size
        elif file.key in local:
            row[3] += file.size
        else:
            begun = allocated(store.drafts.path(file))
            row[3] += begun
            row[4] += file.size - begun
            disk += file.size - begun
    return tuple(ComponentPlan(name, *row) for name, row in sums.items()), disk


def _held_elsewhere(work: WorkList, claims: Sequence[Bitmap]) -> set[int]:
    """Items that an earlier, unfinished run may have left in the partial of any file."""
    found = [(facts.chunks, held) for facts, held in zip(work.blobs, claims, strict=True) if len(held)]
    items = {work.digest(item): item for item in range(len(work))} if found else {}
    held = {items.get(chunks.digest(index)) for chunks, bits in found for index in bits}
    return {item for item in held if item is not None}
