"""Blobs of the Hub client's cache: unfinished ones, and those of the wrong size. None of their bytes is read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from diachunk.api.checkup.base import Area, Budget, Finding, Level, Patient, count, quoted, size
from diachunk.api.checkup.contents import open_store
from diachunk.api.checkup.hub_cache import repositories, root_of
from diachunk.places.base import names_in, regular_size
from diachunk.places.hub_names import algorithm_of, repository_of
from diachunk.store.files import read_hint
from diachunk.within import within

_TREE_BYTES_MAX = 32 * 1024 * 1024
_READ_S = 2.0
_IN_USE_S = 120.0
_SHOWN = 3
_REPAIR = "diachunk verify --cache hub --repair"


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.CACHES, what, cure)


def incomplete(patient: Patient) -> Iterator[Finding]:
    """Unfinished downloads of killed programs, which no client of today goes on with."""
    orphans, total, under_way = [], 0, 0
    for repository in repositories(patient):
        for name in names_in(repository / "blobs"):
            path = repository / "blobs" / name
            if not name.endswith(".incomplete"):
                continue
            if _age(path) < _IN_USE_S:
                under_way += 1
                continue
            orphans.append(path)
            total += regular_size(path) or 0
    if orphans:
        downloads = count(len(orphans), "unfinished download")
        what = f"{size(total)} in {downloads} of the Hub's client, which it will not go on with"
        if len(orphans) <= _SHOWN:
            cure = " ".join(["rm", *map(quoted, orphans)])
        else:
            cure = f"find {quoted(root_of(patient))} -name '*.incomplete' -mmin +2 -delete"
        yield _found(Level.WARNING, what, f"{cure}  # or use what is in them: diachunk adopt")
    elif under_way:
        yield _found(Level.OK, f"{count(under_way, 'download')} of the Hub's client under way")
    else:
        yield _found(Level.OK, "no unfinished downloads in the Hub's cache")


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def sizes(patient: Patient) -> Iterator[Finding]:
    """Blobs that are shorter or longer than what is known of them."""
    try:
        known = within(2 * _READ_S, lambda: _known_sizes(patient))
    except TimeoutError:  # the store hangs: its own group says so
        known = {}
    budget, looked_at, wrong, unknown = Budget(_READ_S), 0, 0, 0
    for repository in repositories(patient):
        stated = {**known, **_tree_sizes(repository)}
        for name in names_in(repository / "blobs"):
            path = repository / "blobs" / name
            actual = regular_size(path) if algorithm_of(name) else None
            if actual is None:
                continue
            looked_at += 1
            wanted = stated.get(name)
            unknown += wanted is None
            empty = actual == 0 and name not in _EMPTY_NAMES
            if (wanted is not None and wanted != actual) or (wanted is None and empty):
                wrong += 1
                wrong_by = "too long" if wanted is not None and actual > wanted else "cut off"
                of = "something" if wanted is None else f"{wanted:,}"
                file = f"{repository_of(repository.name)}: {_file_of(repository, name)}"
                yield _found(Level.FAULT, f"{file} is {wrong_by}: {actual:,} bytes of {of}", _REPAIR)
        if budget.over:
            yield _found(
                Level.NOTE,
                f"{looked_at:,} blobs of the Hub's cache looked at, then time was up",
                "diachunk verify --cache hub",
            )
            return
    if looked_at and not wrong:
        some = (
            f" ({unknown:,} of them known to nobody; `diachunk verify --cache hub` reads them)"
            if unknown
            else ""
        )
        yield _found(Level.OK, f"{count(looked_at, 'blob')} in the Hub's cache, of the right size{some}")


_EMPTY_NAMES = frozenset(
    {
        "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
)
"""An empty file's git id and sha256."""


def _known_sizes(patient: Patient) -> dict[str, int]:
    """Blob name -> bytes, of all files of the manifests here."""
    store = open_store(patient)
    found: dict[str, int] = {}
    if store is not None:
        budget = Budget(_READ_S)
        for manifest in store.catalog.manifests():
            for _, file in manifest.walk():
                found |= {each: file.size for each in (file.sha256, file.git) if each}
            if budget.over:
                break
    return found


def _tree_sizes(repository: Path) -> dict[str, int]:
    """Blob name -> bytes, of the listings that newer clients keep.

    Source: huggingface_hub 2.4: {"files": {PATH: {"size", "blob_id"[, "lfs_sha256", "lfs_size"]}}}.
    """
    found: dict[str, int] = {}
    for name in names_in(repository / "trees"):
        data = read_hint(repository / "trees" / name, _TREE_BYTES_MAX)
        try:
            files = json.loads(data or b"{}")["files"]
            for each in files.values():
                etag, length = each.get("lfs_sha256") or each["blob_id"], each.get("lfs_size") or each["size"]
                if isinstance(etag, str) and isinstance(length, int):
                    found[etag] = length
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _file_of(repository: Path, blob: str) -> str:
    """A file name by which programs know a blob."""
    for directory, _, files in os.walk(repository / "snapshots"):
        for name in files:
            path = Path(directory, name)
            if path.is_symlink() and os.path.basename(os.readlink(path)) == blob:
                return path.relative_to(repository / "snapshots").as_posix().partition("/")[2]
    return f"blobs/{blob[:16]}…"
