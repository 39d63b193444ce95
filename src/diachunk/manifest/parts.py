"""A part of a recipe: some of its components, as a recipe of their own, which yields a manifest of its own.

A name stands for one id everywhere, and so never for a part. A part's revision says which it is: of `dia-1.6b@main` the
vocoder alone is `dia-1.6b@main.vocoder`. So it has one id on every machine, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from diachunk.digest import digest_of
from diachunk.manifest.codec import build
from diachunk.manifest.model import Manifest
from diachunk.manifest.names import is_revision
from diachunk.manifest.recipe import Recipe

_DIGITS = 16
_HEAD_CHARS_MAX = 70


def part_of(recipe: Recipe, components: Collection[str]) -> Recipe:
    """The recipe of these components alone; the recipe itself if it has no others. Their order does not matter."""
    kept = tuple(each for each in recipe.components if each.name in components)
    if len(kept) == len(recipe.components):
        return recipe
    whole = recipe.whole or recipe
    revision = part_revision(whole.revision, [each.name for each in kept])
    return Recipe(whole.name, revision, kept, whole)


def part_named(recipe: Recipe, revision: str) -> Recipe | None:
    """The part of a recipe that has this revision, where that spells the components; None if none has."""
    part = part_of(recipe, revision.removeprefix(f"{recipe.revision}.").split("."))
    return part if part.components and part.whole and part.revision == revision else None


def part_revision(revision: str, names: Sequence[str]) -> str:
    """The revision of the part that is these components, in the order of the recipe."""
    spelled = ".".join((revision, *names))
    if is_revision(spelled) and not any("." in name for name in names):
        return spelled
    digits = digest_of("\0".join((revision, *names)).encode()).hex()[:_DIGITS]
    return f"{revision[:_HEAD_CHARS_MAX].rstrip('.')}.part-{digits}"


def whole_of(revision: str, names: Sequence[str]) -> str:
    """The revision that one with these components calls itself a part of; "" if it does not, or nobody can tell."""
    for whole in (revision.removesuffix("." + ".".join(names)), revision.rpartition(".part-")[0]):
        if whole and part_revision(whole, names) == revision:
            return whole
    return ""


def part_of_manifest(manifest: Manifest, part: Recipe) -> Manifest:
    """What a manifest of the whole says of a part: as if the part had been drawn by itself, so with the same id, if
    all its files are cut by one rule.

    Raises:
        ManifestError: it has none of these components.
    """
    names = {each.name for each in part.components}
    kept = [each for each in manifest.components if each.name in names]
    cut = build(part.name, part.revision, kept, chunking=manifest.chunking)
    hints = {
        key: [each for each in value if _is_of(each, names)] if key == "mirrors" else value
        for key, value in manifest.hints_extra.items()
        if key != "mirrors" or isinstance(value, list)
    }
    places = tuple(each for each in manifest.places if _is_of(each, names))
    return replace(cut, places=places, hints_extra={key: value for key, value in hints.items() if value})


def _is_of(hint: Any, names: Collection[str]) -> bool:
    component = hint.get("component") if isinstance(hint, Mapping) else None
    return isinstance(component, str) and component in names
