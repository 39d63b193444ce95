"""A recipe's files onto this machine, and a manifest of them: published while they are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.drawing_together import swarm_of
from diachunk.api.several import several
from diachunk.api.trust.private import carry_over, mark_on_login
from diachunk.chunking.cuts import cut_sizes
from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import HashedFile, hash_one
from diachunk.digest import Digest
from diachunk.errors import IntegrityError, ManifestError, StoreError
from diachunk.formats.base import FileAccess
from diachunk.formats.registry import find_tensors
from diachunk.manifest import Component, FileEntry, Manifest, build
from diachunk.manifest.model import RULE
from diachunk.manifest.outline import FileOutline
from diachunk.manifest.stated import StatedCheckpoint, StatedFile
from diachunk.sources.base import Source
from diachunk.sources.context import SourceContext
from diachunk.sources.open import open_origins
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.drafts import chunk_list, matches
from diachunk.store.stamps import Stamp, read_stamp
from diachunk.store.store import Store
from diachunk.transfer.assemble import Report
from diachunk.transfer.drafting import Drafting
from diachunk.transfer.progress import How, Listener, Notice, Progress

Tell = Callable[[int], None]


class Knowledge:
    """Which stated files this machine has, by digests that it computed over them itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: dict[tuple[int, str], list[FileOutline]] = {}
        self._ids: frozenset[Digest] | None = None
        self._in_vain: set[Digest] = set()

    def find_or_read(self, file: StatedFile) -> Hashes | None:
        """As `find`; a blob that was recorded as this file and that nothing proves is read rather than fetched."""
        found = self.find(file)
        path = self._store.drafts.claimed(file) if found is None else None
        if path is None or file.key in self._in_vain:
            return found
        self._in_vain.add(file.key)  # asked for several times in one fetch, and gigabytes to read
        try:
            read = hash_one(path, git=bool(file.git))
        except (IntegrityError, StoreError):
            return None
        if not matches(file, read) or path != self._store.layout.blob(read.blake3):
            return None
        _record(self._store, path, read)
        return self._store.drafts.recall(file)

    def find(self, file: StatedFile) -> Hashes | None:
        """The digests of a complete file that is what was stated; None if none is known. Reads nothing."""
        found = self._store.drafts.recall(file)
        if found is not None:
            return found
        for outlined in self._index().get((file.size, file.sha256 or file.git), ()):
            hashes = self._proven(file, outlined)
            if hashes is not None:
                return hashes
        return None

    def _index(self) -> dict[tuple[int, str], list[FileOutline]]:
        # A neighbour that fetched the same files leaves a manifest, and forgets its drafts' records right after.
        ids = frozenset(self._store.catalog.ids())
        if ids != self._ids:
            self._ids, self._files = ids, {}
            for outline in self._store.catalog.outlines():
                for each in outline.files() if outline.chunking == RULE else ():
                    for name in filter(None, (each.sha256, each.git)):
                        self._files.setdefault((each.size, name), []).append(each)
        return self._files

    def _proven(self, file: StatedFile, outlined: FileOutline) -> Hashes | None:
        """What a manifest says of a file counts if its bytes were verified here, its names were computed here, and
        its chunks are those that this machine would cut: or the same recipe would yield another id elsewhere.
        """
        try:
            chunks = outlined.chunks()
        except ManifestError:
            return None  # damaged, or of another spelling than ours: then the file itself is hashed
        holding = self._store.blobs.find(outlined.blake3, outlined.size, chunks)
        if holding.presence is not Presence.PROVEN or holding.path is None:
            return None
        own = self._store.layout.stamp(outlined.blake3)
        stamp = holding.adopted.stamp if holding.adopted else read_stamp(own)
        if stamp is None or not stamp.sha256:
            return None
        hashes = Hashes(
            outlined.size, outlined.blake3, stamp.sha256, stamp.git, chunks.sizes, chunks.digests, RULE
        )
        return hashes if matches(file, hashes) and _cut_by_rule(holding.path, file, hashes) else None


def _cut_by_rule(path: Path, file: StatedFile, hashes: Hashes) -> bool:
    try:
        with FileAccess(path) as access:
            return cut_sizes(file.size, find_tensors(file.path, access).spans) == hashes.sizes
    except (OSError, ValueError):
        return False


def draw(
    stated: StatedCheckpoint,
    context: Context,
    *,
    origins: Iterable[str] = (),
    max_down_bps: int | None = None,
    listener: Listener,
) -> tuple[Manifest, Report]:
    """Makes every stated file a complete, durable blob (or adopts one that is here), and the manifest of them all.

    The manifest follows from the recipe and the bytes alone: it has the same id on every machine.

    Raises:
        TransferIncomplete, IntegrityError, StoreError, Interrupted: see Drafting.fetch.
        ManifestError: what upstream states cannot stand in a manifest.
    """
    store = context.store
    knowledge = Knowledge(store)
    files = list({file.key: file for file in stated.walk()}.values())
    prefixes = adopt_stated(
        context, [file for file in files if knowledge.find_or_read(file) is None], listener
    )
    sources = open_stated(stated, context, origins)
    mark_on_login(sources, store.catalog, [file.key for file in files])
    drafting = Drafting(
        store,
        sources,
        context.config.limits,
        known=knowledge.find_or_read,
        prefixes=prefixes,
        swarm=swarm_of(stated, knowledge.find, context),
        max_down_bps=max_down_bps or context.config.max_down_bps,
        listener=listener,
    )
    hashes = drafting.fetch(files)
    drafting.report.total_bytes = sum(file.size for file in files)
    manifest = _manifest_of(stated, hashes)
    carry_over(stated, manifest, store.catalog)
    store.catalog.add(manifest)
    for file in files:
        store.drafts.forget(file)
    return manifest, drafting.report


def local_parts(stated: StatedCheckpoint, context: Context) -> tuple[set[Digest], set[Digest]]:
    """Keys of the files that are known to be here, and of those of which something lies here that may be it."""
    from diachunk.api.foreign.local_files import find_local
    from diachunk.places import Wanted

    knowledge = Knowledge(context.store)
    files = list({file.key: file for file in stated.walk()}.values())
    present = {file.key for file in files if knowledge.find(file) is not None}
    others = [file for file in files if file.key not in present]
    wanted = [Wanted(file.size, file.sha256, file.git, Path(file.path).name) for file in others]
    return present, {others[number].key for number in find_local(context, wanted)}


def open_stated(stated: StatedCheckpoint, context: Context, origins: Iterable[str]) -> list[Source]:
    """What a recipe's files may come from: their upstreams, their mirrors, the user's origins.

    Raises:
        UsageError: an origin or mirror is no URL and no directory.
    """
    from diachunk.sources.hub_access import hub_access
    from diachunk.sources.upstream import open_upstream, open_url

    named = SourceContext(context.config.limits)
    access = hub_access()
    sources: list[Source] = []
    for component in stated.components:
        upstream = open_upstream(component.name, component.upstream, access, named)
        if upstream is not None:
            sources.append(upstream)
        for mirror in component.mirrors:
            single = len(component.files) == 1 and component.upstream.get("kind") == "url"
            template = mirror if single or "{path}" in mirror else f"{mirror.rstrip('/')}/{{path}}"
            sources.append(open_url(component.name, template, named))
    texts = several(origins)
    sources += open_origins((*texts, *context.config.origins), (), named)
    return sources


def adopt_stated(
    context: Context, files: Sequence[StatedFile], listener: Listener
) -> list[tuple[Digest, Path]]:
    """Looks for stated files that lie here already, hashes them, and adopts those that are what was stated.

    Returns:
        Interrupted downloads of other programs that may hold the beginning of one of the others.
    """
    from diachunk.api.foreign.local_files import find_local, find_prefixes
    from diachunk.places import Wanted

    wanted = [Wanted(file.size, file.sha256, file.git, Path(file.path).name) for file in files]
    adopted = {
        number
        for number, paths in find_local(context, wanted).items()
        if any(_adopt(context, files[number], path, listener) for path in paths)
    }
    prefixes = find_prefixes(context, wanted)
    return [(files[n].key, path) for n, paths in prefixes.items() if n not in adopted for path in paths]


def _adopt(context: Context, file: StatedFile, path: Path, listener: Listener) -> bool:
    """Hashes one candidate; True if it is the file, which is then known to the store where it lies."""
    store = context.store
    read = [0]

    def tell(_: Path, size_bytes: int) -> None:
        read[0] += size_bytes
        listener(Progress(size_bytes, file.component, How.REUSED))

    try:
        found = hash_one(path, tell, git=bool(file.git))
    except (IntegrityError, StoreError):
        found = None
    if found is None or not matches(file, found):
        listener(Progress(-read[0], file.component, How.REUSED))
        listener(Notice(f"{path} is not {file.label} as it was stated: left alone"))
        return False
    listener(Progress(-read[0], file.component, How.REUSED))  # counted once it is looked up
    _record(store, path, found)
    store.drafts.note(file, found)
    return True


def _record(store: Store, path: Path, found: HashedFile) -> None:
    stamp = Stamp.of(found.status).adding(
        chunk_list=chunk_list(found).id, blake3=found.blake3.hex(), sha256=found.sha256, git=found.git
    )
    if path == store.layout.blob(found.blake3):
        store.blobs.restamp(found.blake3, stamp)
    else:
        store.blobs.adopted.put(found.blake3, AdoptedFile(path, stamp))


def _manifest_of(stated: StatedCheckpoint, hashes: dict[Digest, Hashes]) -> Manifest:
    components = []
    for component in stated.components:
        entries = []
        for file in component.files:
            found = hashes[file.key]
            entries.append(
                FileEntry(file.path, found.size, found.blake3, chunk_list(found), found.sha256, git=file.git)
            )
        components.append(Component(component.name, tuple(entries), dict(component.upstream)))
    rules = {each.rule for each in hashes.values()} - {RULE}
    chunking = min(rules) if rules else RULE
    return with_hints(build(stated.name, stated.revision, components, chunking=chunking), stated)


def with_hints(manifest: Manifest, stated: StatedCheckpoint) -> Manifest:
    """The manifest with the hints that follow from what is stated, and no others."""
    places = tuple(
        {"kind": kind, "component": component.name}
        for component in stated.components
        for kind in component.places
    )
    return replace(manifest, origins=(), places=places, hints_extra=_hints(stated))


def _hints(stated: StatedCheckpoint) -> dict[str, object]:
    """What a manifest tells beside its content: where else the files are, and that it took a credential."""
    mirrors = [
        {"component": component.name, "origin": mirror}
        for component in stated.components
        for mirror in component.mirrors
    ]
    hints: dict[str, object] = {"mirrors": mirrors} if mirrors else {}
    return {**hints, "access": "credential"} if stated.private else hints
