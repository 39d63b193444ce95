"""What manifests and recipes say about files in other programs' caches: which of them should lie where."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diachunk.api.context import Context, bundled_manifests
from diachunk.api.recipes import bundled_recipes
from diachunk.digest import Digest
from diachunk.errors import UsageError
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest
from diachunk.manifest.recipe import Recipe, UrlUpstream
from diachunk.manifest.stated import StatedFile
from diachunk.places import Entry, Place
from diachunk.schedule.work import BlobFacts

_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as a manifest has it, chunk by chunk, or as a recipe states it, by its size and digest.

    Attributes:
        checkpoint: NAME@REVISION.
        manifest: None where only a recipe knows it.
        stated: what the recipe states; None where a manifest knows more.
        upstream, mirrors: where a recipe says that it can be had.
    """

    checkpoint: str
    component: str
    entry: FileEntry
    manifest: Manifest | None = None
    stated: StatedFile | None = None
    upstream: Mapping[str, Any] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()

    @property
    def facts(self) -> BlobFacts:
        """For the engine; only of files that a manifest knows."""
        file = self.entry
        return BlobFacts(
            file.blake3, file.size, file.chunks, self.component, file.path, file.sha256, file.git
        )


def known_manifests(context: Context) -> list[Manifest]:
    """Those of the store, then those that ship with the package; each once, damaged ones passed over.

    Raises:
        StoreError: the store cannot be read.
    """
    found: dict[Digest, Manifest] = {}
    for manifest in (*context.store.catalog.manifests(), *bundled_manifests()):
        found.setdefault(manifest.id, manifest)
    return list(found.values())


def stated_files(recipe: Recipe) -> Iterator[tuple[KnownFile, tuple[str, ...]]]:
    """What a recipe states by itself, without asking upstream; and in which kinds of place it belongs."""
    for component in recipe.components:
        if isinstance(component.upstream, UrlUpstream):
            upstream = {"kind": "url", "url": component.upstream.url}
            for file in component.upstream.files:
                entry = FileEntry(
                    file.path, file.size, _NOBODY, ChunkList(b"", array("I")), file.sha256, git=file.git
                )
                known = KnownFile(recipe.ref, component.name, entry, None, file, upstream, component.mirrors)
                yield known, component.places


class KnownFiles:
    """An index over what is known, for a set of places."""

    def __init__(self, places: Iterable[Place], manifests: Iterable[Manifest], recipes: Iterable[Recipe]):
        self._places = {place.kind: place for place in places}
        self._by_digest: dict[str, list[KnownFile]] = {}
        self._at: dict[Path, list[KnownFile]] = {}
        self._of_size: dict[tuple[str, int], list[KnownFile]] = {}
        for manifest in manifests:
            self._add_manifest(manifest)
        for recipe in recipes:
            self._add_recipe(recipe)

    @classmethod
    def of(cls, context: Context | None, places: Iterable[Place]) -> KnownFiles:
        """All that this machine knows; without a store, what ships with the package.

        Raises:
            StoreError: the store cannot be read.
        """
        manifests = known_manifests(context) if context else list(bundled_manifests())
        return cls(places, manifests, bundled_recipes())

    def named(self, place: Place, entry: Entry) -> list[KnownFile]:
        """What this very file should be: by the digest in its name, else by where it lies; the likeliest first."""
        found = self._by_digest.get(entry.expected, []) if entry.expected else self._at.get(entry.path, [])
        return sorted(found, key=lambda each: each.entry.size != entry.size)

    def at(self, path: Path) -> list[KnownFile]:
        """What should lie there, by its digest's name or by the place's layout."""
        return self._at.get(path) or self._by_digest.get(path.name, [])

    def alike(self, place: Place, entry: Entry) -> list[KnownFile]:
        """What it could be, by its size and suffix alone, for places whose names say nothing."""
        found = self._of_size.get((place.kind, entry.size), [])
        return [each for each in found if Path(each.entry.path).suffix == entry.path.suffix]

    # --- building --------------------------------------------------------------------------------------------

    def _add_manifest(self, manifest: Manifest) -> None:
        for component in manifest.components:
            hinted = kinds_of(manifest, component)
            for place in self._places.values():
                known = {id(file): _from(manifest, component, file) for file in component.files}
                self._add(place, component, known, hinted=place.kind in hinted)
            for file in component.files:
                for digest in filter(None, (file.sha256, file.git)):
                    self._by_digest.setdefault(digest, []).append(_from(manifest, component, file))

    def _add_recipe(self, recipe: Recipe) -> None:
        for known, kinds in stated_files(recipe):
            component = Component(known.component, (known.entry,), known.upstream)
            for place in self._places.values():
                self._add(place, component, {id(known.entry): known}, hinted=place.kind in kinds)
            for digest in filter(None, (known.entry.sha256, known.entry.git)):
                self._by_digest.setdefault(digest, []).append(known)

    def _add(self, place: Place, component: Component, known: dict[int, KnownFile], *, hinted: bool) -> None:
        if not place.accepts(component):
            return
        try:
            layout = place.layout(component)
        except UsageError:
            return
        for where, file in (
            *((spot.where, spot.file) for spot in layout.spots),
            *((pointer.where, pointer.file) for pointer in layout.pointers),
        ):
            if hinted:
                self._at.setdefault(place.root / where, []).append(known[id(file)])
            self._of_size.setdefault((place.kind, file.size), []).append(known[id(file)])


def _from(manifest: Manifest, component: Component, file: FileEntry) -> KnownFile:
    return KnownFile(manifest.ref, component.name, file, manifest)


def kinds_of(manifest: Manifest, component: Component) -> frozenset[str]:
    """The kinds of place that a manifest hints at for a component; its hub's cache if it says nothing."""
    hinted = {
        hint["kind"]
        for hint in manifest.places
        if isinstance(hint, dict)
        and hint.get("component", "") == component.name
        and isinstance(hint.get("kind"), str)
    }
    if not hinted and component.upstream.get("kind") == "hub":
        return frozenset({"hub"})
    return frozenset(hinted)


def best_known(known: Sequence[KnownFile]) -> list[KnownFile]:
    """One for each list of chunks, then recipes: what is worth comparing a file with."""
    found: dict[Digest | str, KnownFile] = {}
    for each in known:
        found.setdefault(each.stated.stated if each.stated else each.entry.chunks.id, each)
    return sorted(found.values(), key=lambda each: each.manifest is None)
