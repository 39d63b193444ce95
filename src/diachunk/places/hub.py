"""The cache of huggingface_hub, and so of transformers: blobs named by their digest, links to them by commit.

    models--ORG--NAME/blobs/<etag>             sha256, or git's id for files that are not LFS
    models--ORG--NAME/refs/<revision>          40 hex digits, no newline
    models--ORG--NAME/snapshots/<commit>/PATH  -> ../../blobs/<etag>

Since 1.32 a blob may itself be a link, into a store that several repositories share.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diachunk.manifest import Component
from diachunk.places import hub_layout
from diachunk.places.base import (
    Entry,
    Layout,
    Wanted,
    leads_outside,
    names_in,
    plain_leftovers,
    regular_size,
    walk_files,
)
from diachunk.places.hub_names import algorithm_of, cache_directory, repository_of


class Hub:
    """One such cache: that of the environment, or any directory laid out like it."""

    kind = "hub"

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Hub:
        return cls(Path(cache_directory(environment)))

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        """Blobs by their names; where a cache was made without links, its files by name and size."""
        by_digest: dict[str, list[int]] = {}
        by_name: dict[tuple[str, int], list[int]] = {}
        for index, each in enumerate(wanted):
            for digest in filter(None, (each.sha256, each.git)):
                by_digest.setdefault(digest, []).append(index)
            by_name.setdefault((each.name, each.size), []).append(index)
        for repository in self._repositories():
            for name in names_in(repository / "blobs"):
                indexes = by_digest.get(name, ())
                size = regular_size(repository / "blobs" / name) if indexes else None
                yield from (
                    (each, repository / "blobs" / name) for each in indexes if wanted[each].size == size
                )
            for path in walk_files(repository / "snapshots"):
                if not os.path.islink(path):
                    found = by_name.get((path.name, regular_size(path) or 0), ())
                    yield from ((index, path) for index in found)

    def entries(self) -> Iterator[Entry]:
        for repository in self._repositories():
            yield from _entries_of(repository)

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        for repository in self._repositories():
            for name in names_in(repository / "blobs"):
                path = repository / "blobs" / name
                if name.endswith(".incomplete"):
                    yield path, regular_size(path) or 0
            yield from plain_leftovers(repository)

    def accepts(self, component: Component) -> bool:
        return component.upstream.get("kind") == "hub"

    def layout(self, component: Component) -> Layout:
        return hub_layout.layout(component)

    def _repositories(self) -> Iterator[Path]:
        for name in names_in(self.root):
            if repository_of(name) and os.path.isdir(self.root / name):
                yield self.root / name


def _entries_of(repository: Path) -> Iterator[Entry]:
    """Every blob, by the first file name that leads to it; and files where links belong."""
    name = repository_of(repository.name)
    blobs = repository / "blobs"
    pointed: dict[str, tuple[str, str]] = {}
    for path in walk_files(repository / "snapshots"):
        commit, _, file = path.relative_to(repository / "snapshots").as_posix().partition("/")
        target = _target(path)
        if target is not None and target.parent == blobs:
            pointed.setdefault(target.name, (commit, file))
        elif target is None and (size := regular_size(path)) is not None:
            yield Entry(path, size, "", "", f"{name}/{file}", name, commit, file)
    for blob in names_in(blobs):
        path = blobs / blob
        size = regular_size(path)
        if size is None or blob.endswith(".incomplete") or blob.startswith("."):
            continue
        algorithm = algorithm_of(blob)
        commit, file = pointed.get(blob, ("", ""))
        yield Entry(
            path,
            size,
            algorithm,
            blob if algorithm else "",
            f"{name}/{file}" if file else f"{name}/blobs/{blob}",
            name,
            commit,
            file,
            shared=os.path.islink(path) and leads_outside(path, blobs),
        )


def _target(path: Path) -> Path | None:
    """Where a link leads, one step, as the clients do it; None if it is no link."""
    try:
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            return None
        return Path(os.path.normpath(path.parent / os.readlink(path)))
    except (OSError, ValueError):
        return None
