"""Which files of this machine may be wanted ones: in other programs' caches, in directories that the user names, in
the store. Nothing is hashed here, and no name is believed: all of it is claims, for those who hash.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from diachunk.api.context import Context, bundled_manifests
from diachunk.digest import Digest
from diachunk.errors import ManifestError
from diachunk.limits import KiB
from diachunk.manifest.outline import FileOutline, Outline
from diachunk.places import Wanted, caches
from diachunk.places.base import names_in, regular_size, walk_files
from diachunk.places.hub_names import repository_of
from diachunk.store.files import regular
from diachunk.store.stamps import read_stamp
from diachunk.store.store import Store

CANDIDATES_MAX = 4
"""Files looked at for one that is wanted: each may have to be read, and may be somebody's trap."""

_TELLING_BYTES = 64 * KiB
"""From here on two files of one size are worth comparing whatever their names are."""


def find_local(
    context: Context,
    wanted: Sequence[Wanted],
    directories: Iterable[str | os.PathLike[str]] = (),
    *,
    environment: Mapping[str, str] = os.environ,
) -> dict[int, list[Path]]:
    """Complete files that may be the wanted ones, by their index in `wanted`, the likeliest first.

    First those of the store whose digest was computed by this machine, then what lies in the caches of other
    programs and in `directories` (files among them are looked at by themselves), then what a manifest claims. At
    most CANDIDATES_MAX each; links are resolved.

    Raises:
        StoreError: the store cannot be read.
    """
    found = _Collected(wanted)
    stores = (context.store, *context.lower_stores)
    for store in stores:
        _add_stamped(store, found)
    _add(found, foreign(wanted, directories, environment), stores)
    if found.lacking:
        for store in stores:
            _add_stated(store, found)
    return found.paths


def find_foreign(
    context: Context,
    wanted: Sequence[Wanted],
    directories: Iterable[str | os.PathLike[str]] = (),
    *,
    environment: Mapping[str, str] = os.environ,
) -> dict[int, list[Path]]:
    """The same without what lies in the store."""
    found = _Collected(wanted)
    _add(found, foreign(wanted, directories, environment), (context.store,))
    return found.paths


def find_prefixes(
    context: Context,
    wanted: Sequence[Wanted],
    directories: Iterable[str | os.PathLike[str]] = (),
    *,
    environment: Mapping[str, str] = os.environ,
) -> dict[int, list[Path]]:
    """Files that are not whole but may hold a part at its right offset: cut off, or never finished (`*.incomplete`).

    As `find_local`; none of them has the size that is wanted.
    """
    found = _Collected(wanted, whole=False)
    by_digest: dict[str, list[int]] = {}
    by_name: dict[str, list[int]] = {}
    by_suffix: dict[str, list[int]] = {}
    for index, each in enumerate(wanted):
        for digest in filter(None, (each.sha256, each.git)):
            by_digest.setdefault(digest, []).append(index)
        if each.size >= _TELLING_BYTES:
            by_name.setdefault(each.name, []).append(index)
            by_suffix.setdefault(Path(each.name).suffix, []).append(index)
    for place in caches(environment):
        if place.kind == "hub":
            _add(found, _digest_named(place.root, by_digest), (context.store,))
            continue
        for entry in place.entries():
            same = (
                by_suffix.get(entry.path.suffix) if place.kind == "descript" else by_name.get(entry.path.name)
            )
            _add(found, ((index, entry.path) for index in same or ()), (context.store,))
    for path in _files_below(directories):
        named = [index for part in path.name.split(".") for index in by_digest.get(part, ())]
        same = [*named, *by_name.get(path.name, ())]
        _add(found, ((index, path) for index in same), (context.store,))
    return found.paths


# --- collecting ----------------------------------------------------------------------------------------------


class _Collected:
    """Paths for each index, links resolved, each once, `whole` or of another size."""

    def __init__(self, wanted: Sequence[Wanted], *, whole: bool = True) -> None:
        self.paths: dict[int, list[Path]] = {}
        self.wanted = wanted
        self._whole = whole

    @property
    def lacking(self) -> bool:
        """Whether there is one for which nothing was found."""
        return len(self.paths) < len(self.wanted)

    def add(self, index: int, path: Path) -> None:
        """Adds one, if it is a file that can be read."""
        known = self.paths.get(index, [])
        if len(known) >= CANDIDATES_MAX or path in known:
            return
        size = _readable_size(path)
        if size and (size == self.wanted[index].size) == self._whole:
            self.paths.setdefault(index, []).append(path)


def _readable_size(path: Path) -> int | None:
    try:
        status = os.stat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else None
    except (OSError, ValueError):
        return None


def _add(found: _Collected, candidates: Iterable[tuple[int, Path]], stores: Sequence[Store]) -> None:
    """Adds what lies outside the stores: a link that was placed leads back into one, which knows its own."""
    roots = [Path(os.path.realpath(store.root)) for store in stores]
    for index, path in candidates:
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError):
            continue
        if not any(real.is_relative_to(root) for root in roots):
            found.add(index, real)


# --- other programs' caches and the user's directories -------------------------------------------------------


def foreign(
    wanted: Sequence[Wanted],
    directories: Iterable[str | os.PathLike[str]],
    environment: Mapping[str, str] = os.environ,
) -> Iterator[tuple[int, Path]]:
    """(index in `wanted`, path) of everything that may be it."""
    for place in caches(environment):
        yield from place.candidates(wanted)
    by_size: dict[int, list[int]] = {}
    for index, each in enumerate(wanted):
        by_size.setdefault(each.size, []).append(index)
    for path in _files_below(directories):
        size = regular_size(path)
        for index in by_size.get(-1 if size is None else size, ()):
            if wanted[index].size >= _TELLING_BYTES or _name_tells(path, wanted[index]):
                yield index, path


def _files_below(directories: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    for each in directories:
        path = Path(os.path.abspath(each))
        yield from walk_files(path) if os.path.isdir(path) else (path,)


def _name_tells(path: Path, wanted: Wanted) -> bool:
    digests = {wanted.sha256, wanted.git} - {""}
    return path.name == wanted.name or not digests.isdisjoint(path.name.replace("-", ".").split("."))


def _digest_named(root: Path, by_digest: Mapping[str, Sequence[int]]) -> Iterator[tuple[int, Path]]:
    """Blobs of a hub's cache, and unfinished ones: `<digest>.incomplete`, `<digest>.<random>.incomplete`."""
    for name in names_in(root):
        blobs = root / name / "blobs"
        for blob in names_in(blobs) if repository_of(name) else ():
            yield from ((index, blobs / blob) for index in by_digest.get(blob.partition(".")[0], ()))


# --- the store -----------------------------------------------------------------------------------------------


def _by_digest(wanted: Sequence[Wanted]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for index, each in enumerate(wanted):
        for kind, digest in (("sha256", each.sha256), ("git", each.git)):
            if digest:
                found.setdefault((kind, digest), []).append(index)
    return found


def _add_stamped(store: Store, found: _Collected) -> None:
    """Files on which this machine computed the digest, and that were not touched since."""
    indexes = _by_digest(found.wanted)
    adopted = store.blobs.adopted
    for digest in adopted.digests() if indexes else ():
        for file in adopted.get(digest):
            named = [("sha256", file.stamp.sha256), ("git", file.stamp.git)]
            for index in (index for name in named for index in indexes.get(name, ())):
                if not file.spoiled and file.unchanged() is not None:
                    found.add(index, file.path)
    for path in (store.root / "blobs").glob("??/*.stamp") if indexes else ():
        stamp = read_stamp(path)
        if stamp is None:
            continue
        for index in (
            *indexes.get(("sha256", stamp.sha256), ()),
            *indexes.get(("git", stamp.git), ()),
        ):
            blob = path.with_suffix("")
            status = regular(blob)
            if status is not None and stamp.matches(status):
                found.add(index, blob)


def _add_stated(store: Store, found: _Collected) -> None:
    """Complete files of which a manifest says that they have the digest."""
    indexes = _by_digest(found.wanted)
    seen: set[Digest] = set()
    bundled = (Outline.of(manifest) for manifest in bundled_manifests())
    for outline in (*store.catalog.outlines(), *bundled) if indexes else ():
        for file in outline.files():
            names = (("sha256", file.sha256), ("git", file.git))
            matching = {index for name in names for index in indexes.get(name, ())} - found.paths.keys()
            if matching and file.blake3 not in seen:
                seen.add(file.blake3)
                _add_held(store, file, matching, found)


def _add_held(store: Store, file: FileOutline, indexes: Iterable[int], found: _Collected) -> None:
    with contextlib.suppress(ManifestError):  # damaged chunk lines: `verify` tells of those
        path = store.blobs.find(file.blake3, file.size, file.chunks()).path
        if path is not None:
            for index in indexes:
                found.add(index, path)
