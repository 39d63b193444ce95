"""Recipes and `hub:` targets: what they name, what upstream states of it now, what they became here before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context, bundled
from diachunk.api.several import several
from diachunk.digest import Digest, digest_of
from diachunk.errors import ManifestError, StoreError, TransferIncomplete, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.names import is_name
from diachunk.manifest.recipe import (
    RECIPE_BYTES_MAX,
    HubUpstream,
    Recipe,
    RecipeComponent,
    UrlUpstream,
    hub_upstream,
    parse_recipe,
)
from diachunk.manifest.stated import StatedCheckpoint, StatedComponent
from diachunk.store.files import read_small

if TYPE_CHECKING:
    from diachunk.transfer.progress import Listener

HUB_SCHEME = "hub:"


def bundled_recipes() -> Iterator[Recipe]:
    """The recipes that ship inside the package."""
    for path in bundled("*.toml"):
        yield parse_recipe(path.read_bytes())


@dataclass(frozen=True, slots=True)
class Pick:
    """Which files of a repository are wanted: names or `fnmatch` patterns; no `include` means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, include: Iterable[str], exclude: Iterable[str]) -> Pick:
        return cls(several(include), several(exclude))

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)


NOTHING_PICKED = Pick()


def hub_recipe(text: str, pick: Pick) -> Recipe:
    """The recipe that `hub:ORG/REPO[@REV]` stands for: the repository, or what of it is wanted, under its own name.

    Raises:
        UsageError: not of that form.
    """
    repository, _, revision = text.removeprefix(HUB_SCHEME).partition("@")
    try:
        upstream = hub_upstream(repository, revision or "main")
    except ManifestError as error:
        raise UsageError(f"{text}: {error.message}", hint="hub:ORG/REPO or hub:ORG/REPO@REVISION") from error
    if not is_name(repository):
        raise UsageError(f"{text}: {repository!r:.100} cannot be a checkpoint's name")
    upstream = replace(upstream, files=pick.include, exclude=pick.exclude)
    component = RecipeComponent("", upstream, places=("hub",))
    return Recipe(repository, revision or "main", (component,))


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe's file.

    Raises:
        UsageError: no such file.
        ManifestError: no recipe.
    """
    data = read_small(path, RECIPE_BYTES_MAX)
    if data is None:
        raise UsageError(f"{path}: no such recipe (not a regular file, or too large)")
    try:
        return parse_recipe(data)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error.message}", hint=error.hint) from error


def state(recipe: Recipe, context: Context) -> StatedCheckpoint:
    """Asks upstream for what a recipe leaves open. Hub checkpoints take their commit as their revision.

    Raises:
        UsageError, TransferIncomplete, ManifestError: see sources.hub.describe.
    """
    components: list[StatedComponent] = []
    private = False
    for each in recipe.components:
        if isinstance(each.upstream, HubUpstream):
            from diachunk.sources.hub import describe
            from diachunk.sources.hub_access import hub_access

            found, closed = describe(each.name, each.upstream, hub_access(), context.config.limits)
            private = private or closed
        else:
            found = StatedComponent(each.name, {"kind": "url", "url": each.upstream.url}, each.upstream.files)
        components.append(replace(found, mirrors=each.mirrors, places=each.places))
    revision = recipe.revision
    if _is_whole_repository(recipe):
        revision = str(components[0].upstream["commit"])
    stated = StatedCheckpoint(recipe.name, tuple(components), revision, private)
    stated.check(context.config.limits)
    return stated


def _is_whole_repository(recipe: Recipe) -> bool:
    first = recipe.components[0]
    return (
        first.name == ""
        and isinstance(first.upstream, HubUpstream)
        and first.upstream.repository == recipe.name
    )


def pinned_by(recipe: Recipe, stated: StatedCheckpoint) -> Recipe:
    """The recipe with every branch replaced by the commit that it stood for."""
    components = []
    for each, found in zip(recipe.components, stated.components, strict=True):
        upstream = each.upstream
        if isinstance(upstream, HubUpstream):
            upstream = replace(upstream, revision=str(found.upstream["commit"]))
        components.append(replace(each, upstream=upstream))
    revision = stated.revision if _is_whole_repository(recipe) else recipe.revision
    return Recipe(recipe.name, revision, tuple(components))


# --- what a recipe became on this machine ------------------------------------------------------------------


def recipe_key(recipe: Recipe) -> Digest:
    """Names what a recipe says: which files from where. Mirrors and places are no part of that."""
    said = [recipe.name, recipe.revision]
    for each in recipe.components:
        upstream = asdict(each.upstream)
        if isinstance(each.upstream, UrlUpstream):
            upstream["files"] = sorted((file.path, file.stated, file.size) for file in each.upstream.files)
        said.append(json.dumps([each.name, upstream], sort_keys=True))
    return digest_of(json.dumps(said).encode())


def drawn(recipe: Recipe, context: Context) -> Manifest | None:
    """The manifest that this very recipe became here; None if it never did, or that is gone.

    By a record of this machine's own, never by what a manifest says of itself: anybody can write one that claims to
    come from the Hub.
    """
    manifest_id = context.store.catalog.drawn(recipe_key(recipe))
    try:
        return context.store.catalog.get(manifest_id) if manifest_id is not None else None
    except (StoreError, UsageError):
        return None


def remember(recipe: Recipe, stated: StatedCheckpoint, manifest: Manifest, context: Context) -> None:
    """Notes what a recipe became, under what it says and under the commits that this was."""
    for each in {recipe_key(recipe), recipe_key(pinned_by(recipe, stated))}:
        context.store.catalog.set_drawn(each, manifest.id)


def state_or_drawn(recipe: Recipe, context: Context, listener: Listener) -> StatedCheckpoint | Manifest:
    """What upstream states now, or the manifest if that is known already. A recipe of branches has to ask; where
    nobody answers, it is what it was last time.

    Raises:
        UsageError, TransferIncomplete, ManifestError: as `state`.
    """
    before = drawn(recipe, context)
    if before is not None and recipe.pinned:
        return before
    if before is None and context.sharing is not None:
        context.sharing.look()  # others are looked for while upstream answers, not after it
    try:
        stated = state(recipe, context)
    except TransferIncomplete as error:
        if before is None:
            raise
        from diachunk.transfer.progress import Notice

        listener(Notice(f"{error.message}; using {before.ref} as it was fetched before"))
        return before
    return drawn(pinned_by(recipe, stated), context) or stated
