"""The cache of descript-audio-codec: one file, under a name that says which model it is.

The program reads `~/.cache/descript/dac/weights_<model>_<bitrate>_<tag>.pth` if the path exists, whatever is in it.
It looks in the home directory alone: no variable moves this cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diachunk.errors import UsageError
from diachunk.manifest import Component, FileEntry
from diachunk.places.base import (
    Entry,
    Layout,
    Spot,
    Wanted,
    by_size,
    home_of,
    leads_outside,
    names_in,
    plain_leftovers,
    regular_size,
)

WEIGHTS = "weights_44khz_8kbps_0.0.1.pth"
"""What the 44 kHz model is called there, the one that Dia speaks through."""


class Descript:
    """That cache."""

    kind = "descript"

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Descript:
        return cls(Path(home_of(environment), ".cache", "descript", "dac").absolute())

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        """By size: the name here is not the name of the download."""
        yield from by_size(wanted, [each.path for each in self.entries()])

    def entries(self) -> Iterator[Entry]:
        for name in names_in(self.root):
            path = self.root / name
            size = regular_size(path)
            if size is not None and name.endswith(".pth") and not name.startswith("."):
                outside = os.path.islink(path) and leads_outside(path, self.root)
                yield Entry(path, size, "", "", f"descript/{name}", file=name, shared=outside)

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        yield from plain_leftovers(self.root)

    def accepts(self, component: Component) -> bool:
        return len(_weights(component)) == 1

    def layout(self, component: Component) -> Layout:
        """The component's only `.pth` file; others of its files have no place here."""
        found = _weights(component)
        if len(found) != 1:
            name = component.name or "the checkpoint"
            raise UsageError(f"{name} has {len(found)} .pth files: descript's cache takes one")
        return Layout(
            component.name,
            (Spot(WEIGHTS, found[0]),),
            shown=WEIGHTS,
            use="descript-audio-codec finds its weights now",
        )


def _weights(component: Component) -> list[FileEntry]:
    return [file for file in component.files if file.path.endswith(".pth")]
