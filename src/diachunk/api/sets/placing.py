"""Where a checkpoint of the set is shown: who says so, and what of that it is made for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from diachunk.errors import UsageError
from diachunk.manifest import Component, Manifest
from diachunk.project import PLACE_KINDS, WantedCheckpoint


class Taken:
    """Which directories the checkpoints of a set go to: keeps two from replacing each other's files in one, run
    after run.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[Path, str], Manifest] = {}

    def take(self, directories: Iterable[Path], wanted: WantedCheckpoint, manifest: Manifest) -> None:
        """Raises: UsageError: another checkpoint's component of that name goes there."""
        for directory in directories:
            for component in manifest.components:
                if wanted.components and component.name not in wanted.components:
                    continue
                key = Path(os.path.realpath(directory)), component.name
                other = self._taken.setdefault(key, manifest)
                if other.id != manifest.id:
                    raise UsageError(
                        f"{directory}: {component.name or 'the files'} of {other.ref} and of {manifest.ref} cannot "
                        "both go there",
                        hint="give each a directory of its own",
                    )


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
