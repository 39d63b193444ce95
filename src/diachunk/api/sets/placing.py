"""Where a checkpoint of the set is shown: who says so, and what of that it is made for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from diachunk.errors import UsageError
from diachunk.manifest import Component, Manifest
from diachunk.project import PLACE_KINDS


def fitting(manifest: Manifest, components: Sequence[str], said: Sequence[str]) -> tuple[str, ...] | None:
    """Those of the places that the (chosen) components are made for: what is said of all checkpoints at once holds
    for each as far as it has a place there.

    Args:
        said: kinds and directories; () for what the manifest itself hints at.

    Returns:
        Kinds and directories; () for the hints; None for nowhere.
    """
    chosen = [each for each in manifest.components if not components or each.name in components]
    if not said:
        return () if _hints(manifest, chosen) else None
    return tuple(place for place in said if _fits(manifest, chosen, place)) or None


def _fits(manifest: Manifest, chosen: Sequence[Component], place: str) -> bool:
    from diachunk.places.choose import layouts_of

    try:
        return bool(layouts_of(manifest, chosen, [place], os.environ))
    except UsageError:
        return False


def _hints(manifest: Manifest, chosen: Sequence[Component]) -> bool:
    names = {each.name for each in chosen}
    return any(each.upstream.get("kind") == "hub" for each in chosen) or any(
        hint.get("kind") in PLACE_KINDS and hint.get("component") in names
        for hint in manifest.places
        if isinstance(hint, Mapping)
    )
