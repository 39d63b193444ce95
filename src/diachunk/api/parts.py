"""Some components of a recipe alone: what of it is here, and what has to be asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context
from diachunk.api.recipes import bundled_recipes, drawn, read_recipe, recipe_key, state_or_drawn
from diachunk.errors import ManifestError, TrustError, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.model import DEFAULT_REVISION, RULE
from diachunk.manifest.outline import Outline
from diachunk.manifest.parts import part_named, part_of, part_of_manifest, whole_of
from diachunk.manifest.recipe import Recipe
from diachunk.manifest.stated import StatedCheckpoint

if TYPE_CHECKING:
    from diachunk.transfer.progress import Listener


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be fetched of a recipe: itself or a part, and its manifest, or what upstream states as long as there
    is none.
    """

    recipe: Recipe
    known: Manifest | StatedCheckpoint


def choose(
    recipe: Recipe, components: Collection[str], context: Context, listener: Listener, *, alone: bool = False
) -> Choice:
    """What has these components: the whole if it is here, else a part that is here, else the part to be drawn.

    Args:
        components: () for all.
        alone: these and no others, also where more is here: the same on every machine, whatever it has.

    Raises:
        UsageError: it has no such component. Before anybody is asked.
        TrustError: the settings pin another one, or the whole, which is not here.
        UsageError, TransferIncomplete, ManifestError: as `recipes.state`.
    """
    refuse_unknown(recipe.ref, [each.name for each in recipe.components], components)
    choice = _choice(recipe, components, context, listener, alone)
    if isinstance(choice.known, Manifest):
        check_pin(choice.known, context)
    return choice


def _choice(
    recipe: Recipe, components: Collection[str], context: Context, listener: Listener, alone: bool
) -> Choice:
    part = part_of(recipe, components) if components else recipe
    if part.whole is None:
        return Choice(part, state_or_drawn(part, context, listener))
    if alone or part is recipe:
        known: Manifest | StatedCheckpoint | None = _out_of_the_whole(part, context)
        if known is not None:
            return Choice(part, known)
    else:
        here = _covering(part, context)
        known = state_or_drawn(here, context, listener) if here is not None else None
        if here is not None and isinstance(known, Manifest):  # else it moved on upstream
            return Choice(here, known)
    if drawn(part, context) is None:
        _refuse_pinned(part, part.whole, context)
    return Choice(part, state_or_drawn(part, context, listener))


def refuse_unknown(ref: str, known: Iterable[str], chosen: Iterable[str]) -> None:
    """Raises UsageError for the first component that there is not."""
    known = tuple(known)
    for name in sorted(set(chosen) - set(known)):
        names = ", ".join(each or '""' for each in known)
        raise UsageError(f"{ref} has no component {name!r:.96}", hint=f"it has: {names}")


def here_of(recipe: Recipe, components: Collection[str], context: Context) -> Manifest | None:
    """A manifest of this machine's own that has these components of a recipe: the whole, or a part. None if there is
    none; asks nobody.
    """
    if not set(components) <= {each.name for each in recipe.components}:
        return None
    found = _covering(part_of(recipe, components), context)
    return None if found is None else drawn(found, context)


def parts_here(recipe: Recipe, context: Context) -> Iterator[Recipe]:
    """The parts of a recipe that became manifests here: by this machine's own records, as `drawn`."""
    whole = recipe.whole or recipe
    names = {each.name for each in whole.components}
    catalog = context.store.catalog
    for outline in catalog.outlines() if len(names) > 1 else ():
        components = {each.name for each in outline.components}
        if outline.name == whole.name and components < names:
            part = part_of(whole, components)
            if part.revision == outline.revision and catalog.drawn(recipe_key(part)) == outline.id:
                yield part


def not_fetched(text: str, recipe: Recipe, context: Context, *, local: bool) -> UsageError:
    """The error for a target that is a recipe without a manifest here. Names the parts of it that are here."""
    parts = [each.ref for each in parts_here(recipe, context) if recipe.whole is None]
    what = f"{text} was not fetched here yet"
    if parts:
        return UsageError(
            f"{what}; of it, {', '.join(parts)} {'is' if len(parts) == 1 else 'are'}",
            hint=f"name the part, or diachunk fetch {text}",
        )
    return UsageError(what, hint="`diachunk ls` lists what is here" if local else f"diachunk fetch {text}")


def _covering(part: Recipe, context: Context) -> Recipe | None:
    """Of what is here and has all components of a part: the whole, else the very part, else the smallest."""
    for each in (part.whole, part):
        if each is not None and drawn(each, context) is not None:
            return each
    names = {each.name for each in part.components}
    larger = [each for each in parts_here(part, context) if names < {part.name for part in each.components}]
    return min(larger, key=lambda each: len(each.components), default=None)


def _out_of_the_whole(part: Recipe, context: Context) -> Manifest | None:
    """A part's manifest, made of the whole's: nobody has to be asked. None where it is known by itself, or where only
    drawing it makes sure that it is what it would be elsewhere.
    """
    whole = drawn(part.whole, context) if part.whole is not None and part.pinned else None
    if whole is None or drawn(part, context) is not None:
        return None
    if whole.chunking != RULE or context.store.catalog.is_private(whole.id):
        return None
    return part_of_manifest(whole, part)


def check_pin(manifest: Manifest, context: Context) -> None:
    """A name pinned in the settings stands for that id, whatever its recipe yields."""
    pinned = context.config.pins.get(manifest.ref)
    if pinned is not None and pinned != manifest.hex_id:
        raise TrustError(
            f"{manifest.ref} is pinned to {pinned[:16]}…, but its recipe yields {manifest.hex_id[:16]}…",
            hint="the files were changed at their source, or the pin is of another version",
        )


def _refuse_pinned(part: Recipe, whole: Recipe, context: Context) -> None:
    pins = context.config.pins
    if whole.ref in pins and part.ref not in pins:
        raise TrustError(
            f"{whole.ref} is pinned to {pins[whole.ref][:16]}…, all its components together: nobody can tell of "
            "a part alone whether it is of that",
            hint=f"fetch all of it, or pin {part.ref} as well",
        )


def recipe_called(name: str, revision: str) -> Recipe | None:
    """The recipe that ships with the package under this name, or the part of one."""
    for each in bundled_recipes():
        if each.name == name:
            found = each if each.revision == revision else part_named(each, revision)
            if found is not None:
                return found
    return None


def recipe_at(target: str) -> Recipe | None:
    """The recipe that a target is, by its name or as a file; None for any other target, `hub:` included. Asks nobody.

    Raises:
        UsageError, ManifestError: no such file, or no recipe.
    """
    if target.endswith(".toml"):
        return read_recipe(Path(target))
    name, _, revision = target.partition("@")
    return recipe_called(name, revision or DEFAULT_REVISION)


def components_of_recipe(target: str) -> tuple[str, ...]:
    """Names of the components, where a target is a recipe that can be read; () otherwise."""
    try:
        recipe = recipe_at(target)
    except (UsageError, ManifestError):
        return ()
    return tuple(each.name for each in recipe.components) if recipe is not None else ()


def recipe_of(manifest: Manifest, context: Context) -> Recipe | None:
    """The bundled recipe that became this very manifest here."""
    found = recipe_called(manifest.name, manifest.revision)
    same = found is not None and context.store.catalog.drawn(recipe_key(found)) == manifest.id
    return found if same else None


def keep_closed(recipe: Recipe, stated: StatedCheckpoint, context: Context) -> None:
    """Before a whole or a part is drawn of files that may be here already: what took credentials when it came with
    another part stays marked.

    Raises:
        StoreError: the mark cannot be written.
    """
    catalog = context.store.catalog
    if not catalog.private_ids():
        return
    closed: set[str] = set()
    for each in (recipe.whole or recipe, *parts_here(recipe, context)):
        manifest_id = catalog.drawn(recipe_key(each))
        if manifest_id is not None and catalog.is_private(manifest_id):
            closed |= {component.name for component in each.components}
    for file in stated.walk():
        if file.component in closed:
            catalog.mark_private(file.key)


def called_part_of(checkpoint: Manifest | Outline) -> str:
    """NAME@REVISION of which a checkpoint calls itself a part; "" if of nothing. A claim, to be shown."""
    whole = whole_of(checkpoint.revision, [each.name for each in checkpoint.components])
    return f"{checkpoint.name}@{whole}" if whole else ""


def parts_called(ref: str, context: Context) -> list[Outline]:
    """What calls itself a part of a checkpoint here."""
    return [each for each in context.store.catalog.outlines() if called_part_of(each) == ref]
