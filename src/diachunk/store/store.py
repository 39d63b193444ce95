"""A store as a whole. No database: manifests and blobs are the truth, every index is derived from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diachunk.errors import DiachunkError
from diachunk.store.blobs import Blobs
from diachunk.store.catalog import Catalog
from diachunk.store.drafts import Drafts
from diachunk.store.layout import Layout
from diachunk.store.snapshots import Snapshots


@dataclass(frozen=True, slots=True)
class Store:
    """One open store."""

    layout: Layout
    blobs: Blobs
    catalog: Catalog
    snapshots: Snapshots
    drafts: Drafts

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Store:
        """Opens the store at `root`.

        Raises:
            StoreError: not a store, from a newer version, or not usable (see Layout.open).
        """
        layout = Layout.open(root, create=create)
        blobs = Blobs(layout)
        return cls(layout, blobs, Catalog(layout), Snapshots(layout, blobs), Drafts(layout, blobs))

    @classmethod
    def open_lower(cls, roots: Iterable[Path]) -> tuple[Store, ...]:
        """Read-only stores of the site, as donors. One that cannot be opened is passed over."""
        opened = []
        for root in roots:
            with contextlib.suppress(DiachunkError):
                opened.append(cls.open(root, create=False))
        return tuple(opened)

    @property
    def root(self) -> Path:
        return self.layout.root
