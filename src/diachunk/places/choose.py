"""Which components of a checkpoint go where: by what the user says, else by the manifest's hints and upstreams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from diachunk.digest import Digest
from diachunk.errors import UsageError
from diachunk.manifest import Component, Manifest
from diachunk.places.base import Layout, Place, Pointer, Spot
from diachunk.places.known import KINDS, cache_of, kinds
from diachunk.places.proof import Need

Into = str | os.PathLike[str]


def layouts_of(
    manifest: Manifest,
    chosen: Sequence[Component],
    into: Sequence[Into],
    environment: Mapping[str, str],
    *,
    strict: bool = False,
) -> list[tuple[Place, Layout]]:
    """Which components go where: as the user says, else as the manifest's hints and upstreams do.

    Args:
        strict: a component that a named place is not for is an error, not left out.

    Raises:
        UsageError: nothing says where, or a component has no place there.
    """
    found: list[tuple[Place, Layout]] = []
    for text in dict.fromkeys(into):
        where = cache_of(text, environment)
        hinted = [each for each in chosen if (where.kind, each.name) in hints_of(manifest)]
        fitting = hinted or [each for each in chosen if strict or where.accepts(each)]
        if not fitting:
            raise UsageError(f"nothing of {manifest.ref} belongs into {where.kind}: {_why(where, chosen)}")
        found += [(where, where.layout(component)) for component in fitting]
    if into:
        return found
    for kind, name in hints_of(manifest):
        for component in chosen:
            if component.name == name:
                where = KINDS[kind](environment)
                found.append((where, where.layout(component)))
    if not found:
        raise UsageError(
            f"{manifest.ref} does not say where programs look for it",
            hint=f"--into {', '.join(kinds())} or a directory",
        )
    return found


def _why(where: Place, chosen: Sequence[Component]) -> str:
    try:
        where.layout(chosen[0])
    except UsageError as error:
        return error.message
    return "it has no files"


def hints_of(manifest: Manifest) -> list[tuple[str, str]]:
    """(kind, component) by the manifest's hints; what comes from a hub goes to a hub's cache without one."""
    found: dict[tuple[str, str], None] = {}
    for hint in manifest.places:
        kind = hint.get("kind") if isinstance(hint, Mapping) else None
        if isinstance(kind, str) and kind in KINDS and isinstance(hint.get("component"), str):
            found[kind, hint["component"]] = None
    hinted = {component for _, component in found}
    for component in manifest.components:
        if component.name not in hinted and component.upstream.get("kind") == "hub":
            found["hub", component.name] = None
    return list(found)


def chosen_of(manifest: Manifest, components: Iterable[str]) -> list[Component]:
    names = list(dict.fromkeys(components))
    known = {each.name: each for each in manifest.components}
    for name in names:
        if name not in known:
            listed = ", ".join(each or '""' for each in known)
            raise UsageError(f"{manifest.ref} has no component {name!r:.96}", hint=f"it has: {listed}")
    return [known[name] for name in names] if names else list(manifest.components)


def needs_of(wanted: Sequence[tuple[Place, Layout]]) -> list[Need]:
    """Every file, under every digest that is claimed for it: a manifest may say two things of the same bytes."""
    needs: dict[tuple[Digest, Digest, str, str], Need] = {}
    for _, layout in wanted:
        named: list[Spot | Pointer] = [*layout.spots, *layout.pointers]
        for each in named:
            claim = getattr(each.file, each.algorithm) if each.algorithm else ""
            key = (each.file.blake3, each.file.chunks.id, each.algorithm, claim)
            needs.setdefault(key, Need(layout.component, each.file, each.algorithm))
    return list(needs.values())
