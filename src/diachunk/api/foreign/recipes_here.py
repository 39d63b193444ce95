"""What of a recipe's files lies on this machine before anybody asked upstream for its chunks."""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.drafting import Knowledge
from diachunk.api.foreign.claims import Directories
from diachunk.api.foreign.local_files import find_local
from diachunk.api.recipes import drawn
from diachunk.chunking.hashing import HashedFile, hash_one
from diachunk.errors import IntegrityError, StoreError
from diachunk.manifest.recipe import HubUpstream, Recipe, RecipeComponent, UrlUpstream
from diachunk.manifest.stated import StatedFile
from diachunk.places import Wanted
from diachunk.places.base import regular_size, walk_files
from diachunk.places.hub_names import algorithm_of, cache_directory, directory_of, is_commit
from diachunk.store.adopted import AdoptedFile
from diachunk.store.drafts import chunk_list, matches
from diachunk.store.files import read_hint
from diachunk.store.stamps import Stamp
from diachunk.transfer.progress import How, Listener, Progress, Status


@dataclass(slots=True)
class RecipeShare:
    """What of one component of a recipe is here.

    Attributes:
        total_bytes: None where only upstream knows.
        spoiled: (path, file, size wanted, why) of files that are not what they should be.
    """

    checkpoint: str
    component: str
    total_bytes: int | None
    here_bytes: int = 0
    found_bytes: int = 0
    checked_bytes: int = 0
    found_in: dict[Path, None] = field(default_factory=dict)
    spoiled: list[tuple[Path, str, int, str]] = field(default_factory=list)

    @property
    def directories(self) -> tuple[Path, ...]:
        return tuple(self.found_in)


def recipes_to_adopt(
    context: Context,
    recipes: Sequence[Recipe],
    directories: Directories,
    progress: Listener,
    *,
    dry_run: bool,
) -> list[RecipeShare]:
    """Finds the files of recipes that never became a manifest here, hashes them, and adopts those that are right.

    Raises:
        StoreError: the store cannot be read or written.
    """
    knowledge = Knowledge(context.store)
    directories = tuple(directories)
    done: dict[object, Path | None] = {}
    shares = []
    for recipe in recipes:
        for component in recipe.components if drawn(recipe, context) is None else ():
            stated = list(_stated_by(component))
            total = sum(file.size for file in stated) if isinstance(component.upstream, UrlUpstream) else None
            share = RecipeShare(recipe.ref, component.name, total)
            lacking = []
            for file in stated:
                if file.key in done:
                    _book(share, file, done[file.key])
                elif knowledge.find(file) is not None:
                    share.here_bytes += file.size
                else:
                    lacking.append(file)
            done |= _adopt(context, lacking, directories, share, progress, dry_run=dry_run)
            shares.append(share)
    return shares


def _stated_by(component: RecipeComponent) -> Iterator[StatedFile]:
    """The recipe's own word for its files; of a Hub's, what the names in the Hub's cache claim."""
    if isinstance(component.upstream, UrlUpstream):
        yield from component.upstream.files
        return
    upstream = component.upstream
    top = Path(cache_directory(os.environ), directory_of(upstream.repository))
    snapshot = top / "snapshots" / _commit_of(upstream, top)
    for path in walk_files(snapshot) if snapshot != top / "snapshots" else ():
        file = path.relative_to(snapshot).as_posix()
        if (upstream.files and not _fits(file, upstream.files)) or _fits(file, upstream.exclude):
            continue
        blob = posixpath.basename(os.readlink(path)) if os.path.islink(path) else ""
        algorithm, size = algorithm_of(blob), regular_size(path)
        if algorithm and size is not None:
            names = {algorithm: blob}
            yield StatedFile(component.name, file, size, names.get("sha256", ""), names.get("git", ""))


def _commit_of(upstream: HubUpstream, top: Path) -> str:
    """The commit that the recipe names, or the one that its branch stood for when a client last asked; or ""."""
    if upstream.pinned:
        return upstream.revision
    text = (read_hint(top / "refs" / upstream.revision, 64) or b"").decode("ascii", "replace")
    return text if is_commit(text) else ""


def _fits(path: str, patterns: Sequence[str]) -> bool:
    return any(path == each or fnmatch.fnmatchcase(path, each) for each in patterns)


def _book(share: RecipeShare, file: StatedFile, path: Path | None) -> None:
    if path is not None:
        share.found_bytes += file.size
        share.found_in.setdefault(path.parent)


def _adopt(
    context: Context,
    files: Sequence[StatedFile],
    directories: Directories,
    share: RecipeShare,
    progress: Listener,
    *,
    dry_run: bool,
) -> dict[object, Path | None]:
    wanted = [Wanted(file.size, file.sha256, file.git, Path(file.path).name) for file in files]
    candidates = find_local(context, wanted, directories)
    done: dict[object, Path | None] = {}
    left = sum(files[index].size for index in candidates)
    for index, paths in candidates.items():
        file = files[index]
        progress(Status(0 if dry_run else left, 0.0, None, "", ()))
        left -= file.size
        for path in paths:
            right = dry_run or _is_right(context, file, path, share, progress)
            done[file.key] = path if right else None
            if right:
                _book(share, file, path)
                break
    return done


def _is_right(context: Context, file: StatedFile, path: Path, share: RecipeShare, progress: Listener) -> bool:
    def tell(_: Path, size_bytes: int) -> None:
        share.checked_bytes += size_bytes
        progress(Progress(size_bytes, file.component, How.HASHED))

    try:
        found = hash_one(path, tell, git=bool(file.git))
    except (IntegrityError, StoreError) as error:
        share.spoiled.append((path, file.path, file.size, error.message))
        return False
    if not matches(file, found):
        share.spoiled.append((path, file.path, file.size, f"its bytes do not have {file.stated[:24]}…"))
        return False
    _keep(context, file, path, found)
    return True


def _keep(context: Context, file: StatedFile, path: Path, found: HashedFile) -> None:
    stamp = Stamp.of(found.status).adding(
        chunk_list=chunk_list(found).id, blake3=found.blake3.hex(), sha256=found.sha256, git=found.git
    )
    store = context.store
    if path.is_relative_to(store.root):
        store.blobs.restamp(found.blake3, stamp)
    else:
        store.blobs.adopted.put(found.blake3, AdoptedFile(path, stamp))
    store.drafts.note(file, found)
