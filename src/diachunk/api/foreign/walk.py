"""What lies in a cache besides complete files: links that lead nowhere or out, leftovers, refs, locked doors.

All of it was put there by others: links are looked at, never followed out of the cache, and sizes are bounded.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.foreign.report import CacheState
from diachunk.places import Place
from diachunk.places.base import ENTRIES_MAX, TEMPORARY_SUFFIX, leads_outside, names_in, walk_files
from diachunk.places.hub_names import is_commit, repository_of
from diachunk.store.files import read_hint

_TREE_BYTES_MAX = 64 * 1024 * 1024
_UNFINISHED = (".incomplete", TEMPORARY_SUFFIX, ".diachunk-partial")
_BESIDE = (".locks", ".no_exist")


@dataclass(frozen=True, slots=True)
class Oddity:
    """One name that is no complete file.

    Attributes:
        mends: the path at which a good file would cure it, or None: of a snapshot's link, the blob it leads to.
    """

    path: Path
    label: str
    state: CacheState
    size: int = 0
    why: str = ""
    mends: Path | None = None


def oddities(place: Place) -> Iterator[Oddity]:
    """Everything of that kind below the place's root."""
    if not os.path.lexists(place.root):
        return
    yield from _locked(place)
    for path in _names(place):
        oddity = _look(place, path)
        if oddity is not None:
            yield oddity
    if place.kind == "hub":
        yield from _loose_refs(place)


def _names(place: Place) -> Iterator[Path]:
    """Where files are expected: of a hub's cache, blobs and snapshots, not the locks beside them."""
    if place.kind != "hub":
        yield from walk_files(place.root)
        return
    for name in names_in(place.root):
        if repository_of(name):
            for part in ("blobs", "snapshots"):
                yield from walk_files(place.root / name / part)


def _locked(place: Place) -> Iterator[Oddity]:
    """Directories that cannot be read: what lies behind them is not known to be right."""
    errors: list[OSError] = []
    looked_at = 0
    for directory, below, names in os.walk(place.root, onerror=errors.append):
        looked_at += len(names) + 1
        if looked_at > ENTRIES_MAX:
            yield Oddity(
                Path(directory), label_of(place, Path(directory)), CacheState.UNKNOWN, why="too many names"
            )
            break
        below[:] = [each for each in below if each not in _BESIDE]
    for error in errors:
        path = Path(os.fsdecode(error.filename or place.root))
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            why = f"the directory cannot be read: {error.strerror}"
            yield Oddity(path, label_of(place, path), CacheState.UNREADABLE, why=why)


def _look(place: Place, path: Path) -> Oddity | None:
    """None for what is a file, or leads to one within the cache."""
    label = label_of(place, path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None  # gone since
    except OSError as error:
        return Oddity(path, label, CacheState.UNREADABLE, why=error.strerror or "")
    if path.name.endswith(_UNFINISHED):
        return Oddity(path, label, CacheState.LEFTOVER, status.st_blocks * 512)
    if stat.S_ISREG(status.st_mode):
        return None
    if not stat.S_ISLNK(status.st_mode):
        return Oddity(path, label, CacheState.UNKNOWN, why="neither a file nor a directory")
    target = Path(os.path.normpath(path.parent / os.readlink(path)))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Oddity(
            path, label, CacheState.DANGLING, why=f"leads to {target}", mends=_mends(place, path, target)
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            why = f"leads to {target}, in a circle"
            return Oddity(path, label, CacheState.DANGLING, why=why, mends=_mends(place, path, target))
        return Oddity(path, label, CacheState.UNREADABLE, why=f"leads to {target}: {error.strerror}")
    if _is_pointer(place, path) and leads_outside(target.parent, place.root):
        return Oddity(path, label, CacheState.OUTSIDE, why=f"leads to {target}; not checked")
    return None


def _is_pointer(place: Place, path: Path) -> bool:
    """Whether it is a name that should lead to a blob: those of a hub's snapshots."""
    return place.kind == "hub" and path.relative_to(place.root).parts[1:2] == ("snapshots",)


def _mends(place: Place, path: Path, target: Path) -> Path | None:
    """Where a good file belongs: at the blob that a snapshot's link leads to, else in place of the link itself."""
    if not _is_pointer(place, path):
        return path
    blobs = place.root / path.relative_to(place.root).parts[0] / "blobs"
    return target if target.parent == blobs else None


def _loose_refs(place: Place) -> Iterator[Oddity]:
    """Refs that stand for a commit of which there is no snapshot, or for none: programs then find nothing."""
    for name in names_in(place.root):
        if not repository_of(name):
            continue
        repository = place.root / name
        for path in walk_files(repository / "refs"):
            text = (read_hint(path, 256) or b"").decode("ascii", "replace")
            if path.name.endswith(".tmp") or (
                is_commit(text) and os.path.isdir(repository / "snapshots" / text)
            ):
                continue
            why = f"says {text[:48]!r}, which is no commit"
            if is_commit(text):
                why = f"stands for {text[:12]}, of which nothing is here"
            yield Oddity(path, label_of(place, path), CacheState.LOOSE_REF, why=why)


def label_of(place: Place, path: Path) -> str:
    """As people know it: a hub's directories by the repository's name."""
    parts = path.relative_to(place.root).parts if path.is_relative_to(place.root) else path.parts
    if place.kind != "hub" or not parts:
        return "/".join((place.kind, *parts))
    return "/".join((repository_of(parts[0]) or parts[0], *parts[1:]))


def stated_sizes(place: Place) -> Mapping[Path, int]:
    """Sizes of blobs as a hub's client wrote them down when it asked (`trees/<commit>.json`, since 1.22)."""
    found: dict[Path, int] = {}
    if place.kind != "hub":
        return found
    for name in names_in(place.root):
        if not repository_of(name):
            continue
        repository = place.root / name
        for tree in names_in(repository / "trees"):
            for digest, size in _sizes_in(read_hint(repository / "trees" / tree, _TREE_BYTES_MAX)):
                found[repository / "blobs" / digest] = size
    return found


def _sizes_in(data: bytes | None) -> Iterator[tuple[str, int]]:
    try:
        files = json.loads(data)["files"] if data else {}
        rows = [row for row in files.values() if isinstance(row, dict)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return
    for row in rows:
        digest, size = row.get("lfs_sha256") or row.get("blob_id"), row.get("lfs_size", row.get("size"))
        if isinstance(digest, str) and type(size) is int and "/" not in digest and "\0" not in digest:
            yield digest, size
