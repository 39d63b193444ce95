"""plan: what a fetch would do, before it does anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.drafting import local_parts
from diachunk.api.fetching import chosen_of
from diachunk.api.foreign.claims import adopt_known
from diachunk.api.parts import choose, recipe_of
from diachunk.api.recipes import NOTHING_PICKED, Pick
from diachunk.api.several import several
from diachunk.api.sharing import Sharing
from diachunk.api.targets import By, Resolved, Upstream, look_up
from diachunk.config import Config
from diachunk.manifest import Manifest
from diachunk.manifest.recipe import Recipe
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.schedule.work import files_of
from diachunk.transfer.plan import Plan, plan_components, plan_stated
from diachunk.transfer.progress import Listener, silent


def plan(
    target: str | os.PathLike[str],
    *,
    origins: Iterable[str] = (),
    components: Iterable[str] = (),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    to: str | os.PathLike[str] | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
    settings: Config | None = None,
    sharing: Sharing | None = None,
) -> Plan:
    """What `fetch` would do: bytes to fetch and to reuse, disk. Reads no data and asks no origin; of a recipe that
    was not fetched here yet, upstream is asked for names and sizes. A name that nothing here knows is asked of the
    machines of `sharing`.

    Raises:
        UsageError, ManifestError, StoreError, TransferIncomplete: as fetch.
    """
    context = Context.make(home, settings).with_sharing(sharing)
    pick = Pick.of(include, exclude)
    wish = Wish(os.fspath(target), several(origins), several(components), pick, to)
    return plan_for(wish, context, progress)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a plan is to be made for: arguments of `plan`.

    Attributes:
        part: of a recipe, the components that make the checkpoint, whatever else is here; () for all. None: what has
            `components`.
    """

    target: str
    origins: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    pick: Pick = NOTHING_PICKED
    to: str | os.PathLike[str] | None = None
    part: tuple[str, ...] | None = None


def plan_for(wish: Wish, context: Context, progress: Listener = silent) -> Plan:
    """See `plan`."""
    found = look_up(wish.target, context, pick=wish.pick)
    if wish.part and isinstance(found, Resolved) and found.by is By.NAME and not found.moves_name:
        whole = recipe_of(found.manifest, context)
        found = found if whole is None else Upstream(whole, By.NAME)
    named = tuple(dict.fromkeys((*wish.origins, *context.config.origins)))
    if not isinstance(found, Upstream):
        return _plan_manifest(wish, found, None, context, named, progress)
    components = wish.components if wish.part is None else wish.part
    choice = choose(found.recipe, components, context, progress, alone=wish.part is not None)
    found = Upstream(choice.recipe, found.by)
    if not isinstance(choice.known, Manifest):
        return _plan_recipe(choice.known, found, context, named, wish.to)
    return _plan_manifest(wish, Resolved(choice.known, found.by), choice.recipe, context, named, progress)


def _plan_manifest(
    wish: Wish,
    found: Resolved,
    recipe: Recipe | None,
    context: Context,
    named: tuple[str, ...],
    progress: Listener,
) -> Plan:
    manifest, to = found.manifest, wish.to
    chosen = chosen_of(manifest, wish.components)
    destination = context.destination(to, force=True)
    files = files_of(manifest, chosen, merged=destination.merges_equal_files)
    adopt_known(context, files, progress)
    parts, disk = plan_components(context.store, destination, files, context.lower_stores)
    directory = Path(to) if to is not None else context.store.layout.snapshot(manifest.id)
    return Plan(
        manifest,
        parts,
        disk,
        destination.free_bytes(),
        directory,
        tuple(dict.fromkeys((*named, *_upstreams(manifest), *manifest.origins))),
        found.by is By.NAME,
        found.url,
        recipe=recipe,
        moves_name=found.moves_name,
    )


def _upstreams(named: Manifest | StatedCheckpoint) -> list[str]:
    """Where the components come from, as people know it."""
    from diachunk.sources.hub_access import hub_access, where

    access = hub_access()
    return [text for each in named.components if (text := where(each.upstream, access))]


def _plan_recipe(
    stated: StatedCheckpoint,
    found: Upstream,
    context: Context,
    named: tuple[str, ...],
    to: str | os.PathLike[str] | None,
) -> Plan:
    present, local = local_parts(stated, context)
    parts, disk = plan_stated(context.store, stated, present, local)
    destination = context.destination(to, force=True)
    directory = context.store.layout.named_snapshot(stated.name, stated.revision)
    return Plan(
        None,
        parts,
        disk + (stated.total_bytes if to is not None else 0),
        destination.free_bytes(),
        Path(to) if to is not None else directory,
        tuple(dict.fromkeys((*named, *_upstreams(stated)))),
        found.by is By.NAME,
        stated=stated,
        recipe=found.recipe,
    )
