"""What lies in the store: its mark, manifests, names, links, adopted files. Bytes of blobs are `verify`'s work."""

from __future__ import annotations

import errno
import json
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from diachunk.api.checkup.base import Area, Budget, Check, Finding, Level, Patient, count, quoted
from diachunk.api.checkup.disk import ELSEWHERE
from diachunk.api.context import bundled_manifests
from diachunk.digest import Digest, parse_digest
from diachunk.errors import DiachunkError, StoreError
from diachunk.store.files import read_small
from diachunk.store.layout import DIRECTORIES, FORMAT, LATER_DIRECTORIES
from diachunk.store.store import Store

MARK = "store.json"
_EXAMPLES = 3
_READ_S = 2.0
_UPGRADE = f"{shlex.quote(sys.executable)} -m pip install --upgrade diachunk"


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.STORE, what, cure)


def open_store(patient: Patient) -> Store | None:
    """The store, if it is one that can be read."""
    if patient.home is None:
        return None
    try:
        return Store.open(patient.home, create=False)
    except StoreError:
        return None


def mark(patient: Patient) -> Iterator[Finding]:
    """Whether the directory is a store, of a format that this version knows."""
    root = patient.home
    if root is None or not root.is_dir():
        return
    data = read_small(root / MARK, 4096)
    if data is None:
        if os.path.lexists(root / MARK):
            yield _damaged_mark(root)
        elif strangers := _strangers(root):
            what = f"{root} is not a diachunk store: it holds {strangers[0]}"
            yield _found(
                Level.FAULT, what, f"export DIACHUNK_HOME={quoted(root / 'diachunk')}  # or any new directory"
            )
        else:
            yield _found(Level.OK, f"{root} is empty: the first fetch makes a store of it")
        return
    try:
        values = json.loads(data)
        version, store_id = int(values["diachunk_store"]), str(values["store_id"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        yield _damaged_mark(root)
        return
    if version > FORMAT:
        what = f"{root} was made by a newer diachunk (store format {version}, this one knows {FORMAT})"
        yield _found(Level.FAULT, what, f"{_UPGRADE}  # or: {ELSEWHERE}")
    else:
        yield _found(Level.OK, f"store format {version}, id {store_id}")


def _damaged_mark(root: Path) -> Finding:
    path = root / MARK
    remove = "rm -r" if path.is_dir() and not path.is_symlink() else "rm"
    what = f"{path} is damaged; it holds nothing but the store's format and a random id, and is made anew"
    return _found(Level.FAULT, what, f"{remove} {quoted(path)} && diachunk ls")


def _strangers(root: Path) -> list[str]:
    known = {*DIRECTORIES, *LATER_DIRECTORIES}
    return sorted(name for name in os.listdir(root) if name not in known and not name.startswith("."))


def manifests(patient: Patient) -> Iterator[Finding]:
    """Whether each manifest is what its name says; those for which time does not suffice are only skimmed."""
    store = open_store(patient)
    if store is None:
        return
    budget, proven, wrong = Budget(_READ_S), 0, 0
    names = {ref.manifest_id: str(ref) for ref in store.catalog.refs()}
    everything = store.catalog.ids()
    for manifest_id in everything:
        if budget.over:
            break
        try:
            store.catalog.get(manifest_id)
        except DiachunkError as error:
            wrong += 1
            path = store.layout.manifest(manifest_id)
            label = names.get(manifest_id, manifest_id.hex()[:16] + "…")
            if "newer diachunk" in error.message:
                yield _found(Level.WARNING, f"the manifest of {label}: {error.message}", _UPGRADE)
            else:
                yield _found(
                    Level.FAULT,
                    f"the manifest of {label}: {error.message}",
                    _without(store, manifest_id, path),
                )
        proven += 1
    rest = len(everything) - proven
    if rest:
        skimmed = sum(1 for _ in store.catalog.outlines())
        what = (
            f"{count(rest, 'manifest')} only skimmed, for time ({skimmed} of {len(everything)} can be read)"
        )
        yield _found(Level.NOTE, what, "diachunk verify")
    elif not wrong:
        yield _found(Level.OK, f"{count(proven, 'manifest')} read")


def _without(store: Store, manifest_id: Digest, *paths: Path) -> str:
    """Removes a manifest that cannot be used, and the names that stand for it: they keep it from being fetched."""
    refs = [ref for ref in store.catalog.refs() if ref.manifest_id == manifest_id]
    gone = [*paths, *(store.layout.ref(ref.name, ref.revision) for ref in refs)]
    cure = " ".join(["rm", *map(quoted, gone)])
    shipped = [each for each in bundled_manifests() if each.id == manifest_id]
    if shipped:
        return f"{cure} && diachunk fetch {shlex.quote(shipped[0].ref)}"
    return f"{cure}  # then fetch it again, by the file or URL that it came from"


def names(patient: Patient) -> Iterator[Finding]:
    """Whether the manifest of every name is here."""
    store = open_store(patient)
    if store is None:
        return
    refs = store.catalog.refs()
    lost = [ref for ref in refs if not store.layout.manifest(ref.manifest_id).exists()]
    for ref in lost:
        what = f"the name {ref} stands for {ref.manifest_id.hex()[:16]}…, whose manifest is not here"
        yield _found(Level.FAULT, what, _without(store, ref.manifest_id))
    unreadable = _unreadable_refs(store.root / "refs")
    if unreadable:
        what = f"{count(len(unreadable), 'name')} of the store cannot be read, such as {unreadable[0]}"
        yield _found(Level.FAULT, what, " ".join(["rm", *map(quoted, unreadable)]))
    if not lost and not unreadable:
        yield _found(Level.OK, f"{count(len(refs), 'name')}, each with its manifest")


def _unreadable_refs(root: Path) -> list[Path]:
    """Files of refs/ that hold no id."""
    found = []
    for directory, _, files in os.walk(root):
        for file in files:
            path = Path(directory, file)
            data = read_small(path, 256) if not file.startswith(".") else b"0" * 64
            text = (data or b"").strip()
            if len(text) != 64 or text.strip(b"0123456789abcdef"):
                found.append(path)
    return sorted(found)


def links(patient: Patient) -> Iterator[Finding]:
    """Whether the directories that programs are given lead to files."""
    store = open_store(patient)
    if store is None:
        return
    budget, looked_at, clean = Budget(_READ_S), 0, True
    for ref in store.catalog.refs():
        link = store.layout.named_snapshot(ref.name, ref.revision)
        looked_at += link.is_symlink()
        if link.is_symlink() and not link.exists():
            clean = False
            what = f"{ref}: the directory that programs are given leads nowhere ({link})"
            yield _found(Level.FAULT, what, f"diachunk fetch {shlex.quote(str(ref))}")
    for manifest_id in store.catalog.ids():
        root = store.layout.snapshot(manifest_id)
        dangling = []
        for path in _links_below(root):
            looked_at += 1
            if not path.exists():
                dangling.append(path)
            if budget.over:
                break
        if dangling:
            clean = False
            yield _dangling(store, manifest_id, dangling)
        if budget.over:
            what = f"{count(looked_at, 'link')} of snapshots looked at, then time was up"
            yield _found(Level.NOTE, what, "diachunk verify")
            return
    if clean:
        yield _found(Level.OK, f"{count(looked_at, 'link')} in snapshots, none of them dangling")


def _links_below(root: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(root):
        for name in (*below, *files):
            path = Path(directory, name)
            if path.is_symlink():
                yield path


def _dangling(store: Store, manifest_id: Digest, dangling: list[Path]) -> Finding:
    label = next((str(ref) for ref in store.catalog.refs() if ref.manifest_id == manifest_id), "")
    target = label or manifest_id.hex()[:16]
    inside = dangling[0].relative_to(store.layout.snapshot(manifest_id))
    others = f" and {count(len(dangling) - 1, 'other')}" if len(dangling) > 1 else ""
    leads_to = os.readlink(dangling[0])
    why = (
        "is not whole: what mends or fetches it did not end"
        if _is_begun(store, leads_to)
        else "was moved or removed"
    )
    what = f"{inside}{others} of {target}: the file that it leads to {why} ({leads_to})"
    return _found(Level.FAULT, what, f"diachunk fetch {shlex.quote(target)}")


def _is_begun(store: Store, leads_to: str) -> bool:
    """Whether a link leads to a blob of which there is a part, as after a repair that found no source."""
    try:
        return bool(store.layout.partials(parse_digest(os.path.basename(leads_to))))
    except ValueError:
        return False


def adopted(patient: Patient) -> Iterator[Finding]:
    """Whether the files elsewhere that the store counts on are as they were."""
    store = open_store(patient)
    if store is None:
        return
    budget, good = Budget(_READ_S), 0
    gone: list[Path] = []
    changed: dict[Digest, Path] = {}
    for digest in store.blobs.adopted.digests():
        for file in store.blobs.adopted.get(digest):
            if file.unchanged() is not None:
                good += 1
            elif _is_gone(file.path):
                gone.append(file.path)
            else:
                changed[digest] = file.path
        if budget.over:
            yield _found(Level.NOTE, f"{good:,} adopted files looked at, then time was up")
            break
    # One that changed is history unless a checkpoint lacks what it was: a new version was published.
    missed = _missed(store, changed)
    for label, paths in missed.items():
        what = f"{_some(paths)} changed since adopted, and nothing else here holds what it was for {label}"
        yield _found(Level.WARNING, what, f"diachunk fetch {shlex.quote(label)}")
    if gone:
        what = (
            f"{_some(gone)} moved or removed since adopted: what counted on that is fetched when it is wanted"
        )
        yield _found(Level.NOTE, what, "diachunk gc")
    if not gone and not missed:
        yield _found(Level.OK, f"{count(good, 'adopted file')} as before")


def _missed(store: Store, changed: dict[Digest, Path]) -> dict[str, list[Path]]:
    """Which checkpoints lack which of these bytes now."""
    found: dict[str, list[Path]] = {}
    refs = {ref.manifest_id: str(ref) for ref in store.catalog.refs()}
    for outline in store.catalog.outlines() if changed else ():
        for file in outline.files():
            if file.blake3 in changed and not store.blobs.holds(file.blake3, file.size):
                label = refs.get(outline.id, outline.id.hex()[:16])
                found.setdefault(label, []).append(changed[file.blake3])
    return found


def _some(paths: list[Path]) -> str:
    first = ", ".join(map(str, paths[:_EXAMPLES]))
    return first + (f" and {len(paths) - _EXAMPLES:,} more" if len(paths) > _EXAMPLES else "")


def _is_gone(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def lower_store(root: Path) -> Check:
    """The check of a read-only store of the site."""

    def site_store(patient: Patient) -> Iterator[Finding]:
        try:
            Store.open(root, create=False)
        except StoreError as error:
            what = f"the site store: {error.message}; nothing is taken from it"
            yield _found(Level.WARNING, what, "diachunk config  # says where it is set; is it mounted?")
        else:
            yield _found(Level.OK, f"the site store {root} can be read")

    return site_store
