"""What is not for everybody: checkpoints of which anything was had with the user's own credentials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diachunk.digest import Digest
from diachunk.manifest import Manifest
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.sources.base import Source
from diachunk.store.catalog import Catalog


def marks_private(sources: Iterable[Source]) -> bool:
    """Whether one of them gave anything only for the user's credentials."""
    return any(getattr(source, "used_login", False) for source in sources)


def mark_on_login(sources: Iterable[Source], catalog: Catalog, ids: Sequence[Digest]) -> None:
    """Sees to it that what is fetched is marked before the first byte that took credentials is here.

    Args:
        ids: the manifest's; of a recipe, whose manifest is not known yet, the keys of its files.
    """

    from diachunk.sources.http import HttpOrigin  # `ls` and its like need no HTTP

    def mark() -> None:
        for each in ids:
            catalog.mark_private(each)

    for source in sources:
        if isinstance(source, HttpOrigin):
            source.on_login = mark


def carry_over(stated: StatedCheckpoint, manifest: Manifest, catalog: Catalog) -> None:
    """Marks what a recipe became, before its manifest is added, if upstream says that it is closed, or if any of its
    files took credentials: in this run, or in one that was stopped before it came to a manifest.
    """
    keys = [file.key for file in stated.walk()]
    marked = [key for key in keys if catalog.is_private(key)]
    if stated.private or marked:
        catalog.mark_private(manifest.id)
    for key in marked:
        catalog.forget_private(key)
