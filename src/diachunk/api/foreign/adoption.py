"""adopt: looks through what the machine has for the files of every known checkpoint, and proves what is there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.api.context import Context, bundled_manifests
from diachunk.api.foreign.claims import Directories, Located, locate
from diachunk.api.foreign.known_files import known_manifests
from diachunk.api.foreign.recipes_here import RecipeShare, recipes_to_adopt
from diachunk.api.recipes import bundled_recipes, drawn
from diachunk.api.several import Several, several
from diachunk.api.targets import Resolved, Upstream, look_up
from diachunk.digest import Digest
from diachunk.errors import UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.recipe import Recipe
from diachunk.schedule.work import files_of
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.transfer.check import Checked, check_files
from diachunk.transfer.progress import Listener, silent


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A file that was found and is not whole. `good_bytes` of it are right (or unread, in a dry run)."""

    path: Path
    label: str
    size: int
    good_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Share:
    """What of one component is on this machine.

    Attributes:
        target: what `diachunk fetch` takes for this checkpoint.
        total_bytes: of all its files; None where only upstream knows that (a recipe's).
        here_bytes: known before; found_bytes: adopted now; good_bytes: right, in files that are not whole.
        directories: where what was adopted lies.
    """

    checkpoint: str
    target: str
    component: str
    total_bytes: int | None
    here_bytes: int = 0
    found_bytes: int = 0
    good_bytes: int = 0
    directories: tuple[Path, ...] = ()
    spoiled: tuple[Spoiled, ...] = ()

    @property
    def left_bytes(self) -> int | None:
        """What `fetch` would still have to bring; None if nobody here knows."""
        if self.total_bytes is None:
            return None
        return max(0, self.total_bytes - self.here_bytes - self.found_bytes - self.good_bytes)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was found, component by component. In a dry run nothing was read: all of it is claims.

    Attributes:
        checked_bytes: read and hashed; `elapsed_s`: seconds that all of it took.
    """

    shares: tuple[Share, ...]
    checked_bytes: int = 0
    elapsed_s: float = 0.0
    dry_run: bool = False

    @property
    def found_bytes(self) -> int:
        return sum(share.found_bytes for share in self.shares)


def adopt(
    sources: Several = (),
    *,
    targets: Several = (),
    dry_run: bool = False,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> Adoption:
    """Finds the files of known checkpoints where other programs keep them, proves them, and notes where they lie.

    They are neither copied nor moved nor changed; `fetch` and `place` then use them as they are.

    Args:
        sources: directories and files to look through, besides the caches of the Hub, descript and Dia.
        targets: checkpoints to look for; all that are known here if there are none.
        dry_run: only look for them: nothing is read and nothing is noted.
        progress: told of the bytes that are hashed.

    Raises:
        UsageError: a directory or target is not there.
        ManifestError, StoreError, Interrupted.
    """
    started_at = time.monotonic()
    directories = [Path(os.path.abspath(each)) for each in several(sources)]
    for each in directories:
        if "\0" in str(each) or not os.path.exists(each):
            raise UsageError(f"{each}: no such file or directory")
    context = Context.make(home)
    manifests, recipes = _known(several(targets), context)
    walk = _Walk(context, [manifest for manifest, _ in manifests], directories, progress)
    if not dry_run:
        walk.prove()
    shares = [share for each, target in manifests for share in walk.shares(each, target)]
    for recipe, target in recipes:
        found = recipes_to_adopt(context, [recipe], directories, progress, dry_run=dry_run)
        shares += [_share_of(each, target) for each in found]
        walk.checked_bytes += sum(each.checked_bytes for each in found)
    return Adoption(tuple(shares), walk.checked_bytes, time.monotonic() - started_at, dry_run)


def _known(
    targets: Sequence[str], context: Context
) -> tuple[list[tuple[Manifest, str]], list[tuple[Recipe, str]]]:
    """The manifests and recipes to look for, each with what `fetch` takes for it."""
    if not targets:
        named = {manifest.id for manifest in bundled_manifests()}
        manifests = [(each, _target(each, named, context)) for each in known_manifests(context)]
        return manifests, [(each, each.ref.removesuffix("@main")) for each in bundled_recipes()]
    manifests, recipes = [], []
    for text in targets:
        found = look_up(text, context, local=True)
        manifest = found.manifest if isinstance(found, Resolved) else drawn(found.recipe, context)
        if manifest is not None:
            manifests.append((manifest, text))
        elif isinstance(found, Upstream):
            recipes.append((found.recipe, text))
    return manifests, recipes


def _target(manifest: Manifest, named: Set[Digest], context: Context) -> str:
    """Its name where that stands for it, else its id."""
    known = context.store.catalog.ref(manifest.name, manifest.revision)
    by_name = known == manifest.id or (known is None and manifest.id in named)
    return manifest.ref.removesuffix("@main") if by_name else manifest.hex_id[:16]


def _share_of(each: RecipeShare, target: str) -> Share:
    return Share(
        each.checkpoint,
        target,
        each.component,
        each.total_bytes,
        each.here_bytes,
        each.found_bytes,
        directories=each.directories,
        spoiled=tuple(Spoiled(path, label, size, 0, why) for path, label, size, why in each.spoiled),
    )


@dataclass(slots=True)
class _Fate:
    """What came of one wanted file."""

    located: Located
    adopted: Path | None = None
    spoiled: list[Spoiled] = field(default_factory=list)
    good_bytes: int = 0


class _Walk:
    """One search for the files of some manifests, equal files once."""

    def __init__(
        self,
        context: Context,
        manifests: Sequence[Manifest],
        directories: Directories,
        listener: Listener,
    ) -> None:
        self.checked_bytes = 0
        self._context = context
        self._listener = listener
        files = [facts for manifest in manifests for facts in files_of(manifest, None, merged=True)]
        find = context.store.blobs.find
        self._here = {
            facts.digest
            for facts in files
            if find(facts.digest, facts.size, facts.chunks).presence is Presence.PROVEN or not facts.size
        }
        located = locate(context, files, directories)
        self._fates = {each.facts.digest: _Fate(each, next(iter(each.whole), None)) for each in located}

    def prove(self) -> None:
        """Hashes the candidates, the likeliest of each file first, until one is right."""
        fates = [fate for fate in self._fates.values() if fate.located.whole]
        for fate in fates:
            fate.adopted = None
        for turn in range(max((len(fate.located.whole) for fate in fates), default=0)):
            todo = [fate for fate in fates if not fate.adopted and turn < len(fate.located.whole)]
            pairs = [(fate.located.facts, fate.located.whole[turn]) for fate in todo]
            checks = check_files(pairs, self._context.config.limits, listener=self._listener)
            for fate, checked in zip(todo, checks, strict=True):
                self._settle(fate, checked)
        for fate in self._fates.values():
            if not fate.adopted and fate.located.parts:
                self._settle_parts(fate)
        # A record that was found may be one that a killed run made and did not flush.
        layout = self._context.store.layout
        layout.files.settle(layout.root / "adopted")

    def _settle(self, fate: _Fate, checked: Checked) -> None:
        facts, good = checked.facts, _good_bytes(checked)
        self.checked_bytes += good
        adopted = self._context.store.blobs.adopted
        if checked.right and checked.identity is not None:
            stamp = checked.identity.adding(chunk_list=facts.chunks.id)
            adopted.put(facts.digest, AdoptedFile(checked.path, stamp))
            fate.adopted = checked.path
        elif checked.identity is not None and checked.still_there:
            why = checked.unreadable or f"{len(checked.bad):,} of {len(facts.chunks):,} chunks are damaged"
            self._note_spoiled(fate, checked, good, why)

    def _settle_parts(self, fate: _Fate) -> None:
        facts = fate.located.facts
        pairs = [(facts, path) for path in fate.located.parts]
        for checked in check_files(pairs, self._context.config.limits, listener=self._listener):
            self.checked_bytes += (good := _good_bytes(checked))
            if checked.identity is not None and good:
                word = "unfinished" if checked.path.name.endswith(".incomplete") else "not of the right size"
                why = f"{word}: {checked.identity.size:,} of {facts.size:,} bytes"
                self._note_spoiled(fate, checked, good, why)

    def _note_spoiled(self, fate: _Fate, checked: Checked, good: int, why: str) -> None:
        facts, adopted = checked.facts, self._context.store.blobs.adopted
        fate.spoiled.append(Spoiled(checked.path, facts.path, facts.size, good, why))
        fate.good_bytes = max(fate.good_bytes, good)
        if good and checked.identity is not None:
            adopted.put(facts.digest, AdoptedFile(checked.path, checked.identity, spoiled=True))
        elif any(file.path == checked.path for file in adopted.get(facts.digest)):
            adopted.drop(facts.digest, checked.path)

    # --- telling -------------------------------------------------------------------------------------------

    def shares(self, manifest: Manifest, target: str) -> list[Share]:
        """One for each component."""
        found = []
        for component in manifest.components:
            files = {file.blake3: file.size for file in component.files}
            fates = [fate for digest in files if (fate := self._fates.get(digest))]
            adopted = [fate for fate in fates if fate.adopted]
            lost = [fate for fate in fates if not fate.adopted]
            found.append(
                Share(
                    manifest.ref,
                    target,
                    component.name,
                    sum(files.values()),
                    sum(size for digest, size in files.items() if digest in self._here),
                    sum(fate.located.facts.size for fate in adopted),
                    sum(fate.good_bytes for fate in lost),
                    _parents(fate.adopted for fate in adopted),
                    tuple(each for fate in lost for each in fate.spoiled),
                )
            )
        return found


def _good_bytes(checked: Checked) -> int:
    return sum(checked.facts.chunks.sizes[index] for index in checked.good)


def _parents(paths: Iterable[Path | None]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(path.parent for path in paths if path is not None))
