"""Any directory: `DIR/<component>/<path>`. The caches that are no more than that build on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from diachunk.manifest import Component
from diachunk.places.base import (
    TEMPORARY_SUFFIX,
    Entry,
    Layout,
    Spot,
    Wanted,
    by_size,
    leads_outside,
    plain_leftovers,
    regular_size,
    walk_files,
)

_UNFINISHED = (TEMPORARY_SUFFIX, ".diachunk-partial", ".incomplete", ".part", ".partial")


class Directory:
    """A directory that the user named."""

    kind = "directory"

    def __init__(self, root: Path) -> None:
        self.root = root

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        yield from by_size(wanted, [each.path for each in self.entries()])

    def entries(self) -> Iterator[Entry]:
        for path in walk_files(self.root):
            size = regular_size(path)
            if size is None or path.name.endswith(_UNFINISHED):
                continue
            name = path.relative_to(self.root).as_posix()
            outside = os.path.islink(path) and leads_outside(path, self.root)
            yield Entry(path, size, "", "", f"{self.root.name}/{name}", file=name, shared=outside)

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        yield from plain_leftovers(self.root)

    def accepts(self, component: Component) -> bool:
        return bool(component.files)

    def layout(self, component: Component) -> Layout:
        prefix = f"{component.name}/" if component.name else ""
        spots = tuple(Spot(f"{prefix}{file.path}", file) for file in component.files)
        return Layout(component.name, spots, shown=component.name or ".")
