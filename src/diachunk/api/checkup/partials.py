"""What is unfinished in the store: partials, who works on them, what killed runs left, and room for the rest."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.api.checkup.base import Area, Budget, Finding, Level, Patient, age, count, quoted, size
from diachunk.api.checkup.contents import MARK, open_store
from diachunk.api.checkup.disk import ELSEWHERE
from diachunk.api.checkup.linux import Process, has_open, lock_holders, process
from diachunk.digest import Digest, parse_digest
from diachunk.manifest.outline import Outline
from diachunk.store.collect import GRACE_S
from diachunk.store.extents import allocated
from diachunk.store.layout import DIRECTORIES
from diachunk.store.locks import held_by_another
from diachunk.store.store import Store

_WALK_S = 2.0
STILL_S = 60.0
"""A fetch that works sets its partials' mtime every few seconds (`Partial.beat`)."""


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.STORE, what, cure)


@dataclass(slots=True)
class _Unfinished:
    """What only a write under way, or one that was killed, leaves in a store."""

    partials: list[Path] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)


def _unfinished(store: Store) -> _Unfinished:
    found, budget = _Unfinished(), Budget(_WALK_S)
    for name in (*DIRECTORIES, ""):
        for directory, below, files in os.walk(store.root / name):
            if budget.over:
                return found
            if not name:
                below.clear()
            for each in (*below, *files):
                path = Path(directory, each)
                if each.endswith(".partial") and name in ("blobs", "drafts"):
                    found.partials.append(path)
                elif each.startswith(".") and (each.endswith(".tmp") or ".moved-aside-" in each):
                    found.leftovers.append(path)
    return found


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def locks(patient: Patient) -> Iterator[Finding]:
    """Whether processes that hold locks get on."""
    store = open_store(patient)
    if store is None:
        return
    by_pid: dict[int, list[Path]] = {}
    for path, pid in _held(store):
        by_pid.setdefault(pid, []).append(path)
    for pid, paths in by_pid.items():
        yield _holder(pid, paths)
    if not by_pid:
        yield _found(Level.OK, "no locks held in the store")


def _holder(pid: int, paths: list[Path]) -> Finding:
    """One process that holds locks: does it get on?"""
    who = process(pid) if pid else None
    name = f"process {pid} ({who.command or 'another user’s'})" if who else "another process"
    partials = [path for path in paths if path.name != MARK]
    doing = f"fetches {count(len(partials), 'file')}" if partials else "collects garbage"
    still = min(map(_age, partials), default=0.0)
    if who is not None and who.state == "T":
        state = "is stopped (Ctrl-Z?)"
    elif still > STILL_S:
        state = f"has not moved for {age(still)}"
    else:
        return _found(Level.OK, f"{name} {doing}")
    return _found(
        Level.WARNING, f"{name} {doing}, holds the locks, and {state}: others wait for it", _wake(who)
    )


def _wake(who: Process | None) -> str:
    if who is None:
        return "ps ax | grep diachunk  # end the one that hangs: kill PID"
    return f"kill -CONT {who.pid}" if who.state == "T" else f"kill {who.pid}"


def _held(store: Store) -> Iterator[tuple[Path, int]]:
    """Locked files of the store, with the process that holds them (0 if that cannot be told)."""
    paths = [*_unfinished(store).partials, store.root / MARK]
    if sys.platform != "linux":
        # There asking takes the lock for a moment: not of the guard, whose holders come and go.
        yield from ((path, 0) for path in paths[:-1] if held_by_another(path) is not None)
        return
    holders = lock_holders()
    for path in paths:
        try:
            pids = holders.get(path.stat().st_ino, ())
        except OSError:
            continue
        for pid in pids:
            if pid > 0 and has_open(pid, path) is not False:
                yield path, pid


def unfinished(patient: Patient) -> Iterator[Finding]:
    """Partials that nobody works on, by checkpoint, and what was left behind or moved aside."""
    store = open_store(patient)
    if store is None:
        return
    found = _unfinished(store)
    held = {path for path, _ in _held(store)}
    outlines = list(store.catalog.outlines())
    idle = [path for path in found.partials if path not in held and allocated(path)]
    by_label: dict[str, list[Path]] = {}
    for path in idle:
        by_label.setdefault(_label(store, path, outlines), []).append(path)
    for label, paths in sorted(by_label.items()):
        still = min(map(_age, paths))
        amount = size(sum(map(allocated, paths)))
        if label:
            what = f"{amount} of {label} fetched in part, untouched for {age(still)}"
            yield _found(Level.NOTE, what, f"diachunk fetch {shlex.quote(label)}  # goes on where it was")
        elif still > GRACE_S:
            what = (
                f"{amount} in {count(len(paths), 'partial')} that nothing needs, untouched for {age(still)}"
            )
            yield _found(Level.WARNING, what, "diachunk gc")
        else:
            yield _found(Level.OK, f"{amount} in {count(len(paths), 'partial')} of late")
    old = [path for path in found.leftovers if _age(path) > GRACE_S]
    if old:
        amount = size(sum(map(_disk_bytes, old)))
        what = f"{amount} in {count(len(old), 'leftover')} of killed runs or moved aside, such as {old[0]}"
        yield _found(Level.WARNING, what, _remove(store, old))
    elif not idle:
        yield _found(Level.OK, "nothing unfinished or left over")


def _label(store: Store, path: Path, outlines: list[Outline]) -> str:
    """The name or id of a checkpoint that this partial is part of; "" if there is none."""
    try:
        digest = parse_digest(path.name.partition(".")[0])
    except ValueError:
        return ""
    if store.layout.blob(digest).exists():
        return ""
    refs: dict[Digest, str] = {ref.manifest_id: str(ref) for ref in store.catalog.refs()}
    wanted = [each for each in outlines if any(file.blake3 == digest for file in each.files())]
    named = sorted(refs[each.id] for each in wanted if each.id in refs)
    return next(iter([*named, *(each.id.hex()[:16] for each in wanted)]), "")


def _remove(store: Store, old: list[Path]) -> str:
    """`gc`, and what it leaves: directories, and what was moved aside outside of blobs/."""
    rest = [
        path
        for path in old
        if path.is_dir() or (".moved-aside-" in path.name and store.root / "blobs" not in path.parents)
    ]
    return " && ".join(["diachunk gc", *(f"rm -r {quoted(path)}" for path in rest)])


def _disk_bytes(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(each.lstat().st_blocks * 512 for each in path.rglob("*"))
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def room(patient: Patient) -> Iterator[Finding]:
    """Whether what is still to come, of checkpoints that are named here or that the settings want, has room."""
    store = open_store(patient)
    if store is None:
        return
    refs = {ref.manifest_id for ref in store.catalog.refs()} | store.catalog.pins()
    sizes: dict[Digest, int] = {}
    dark = set(refs)
    for outline in store.catalog.outlines():
        dark.discard(outline.id)
        named = outline.id in refs or {outline.name, f"{outline.name}@{outline.revision}"} & {
            *patient.targets
        }
        for file in outline.files() if named else ():
            if not store.blobs.holds(file.blake3, file.size):
                sizes[file.blake3] = file.size - _begun(store, file.blake3)
    missing, free = sum(sizes.values()), store.layout.free_bytes()
    if dark:
        # Their fault is told by `names` and `manifests`.
        its = "its manifest" if len(dark) == 1 else "their manifests"
        what = f"of {count(len(dark), 'named checkpoint')} nobody can tell what is still to come: {its} cannot be read"
        yield _found(Level.NOTE, what)
    if not missing:
        if not dark:
            yield _found(Level.OK, "no file of a named checkpoint is still to come")
    elif missing > free:
        what = f"{size(missing)} still to come, {size(free)} free at {store.root}"
        yield _found(
            Level.FAULT, what, f"diachunk gc  # if that is not enough: {ELSEWHERE}, on a larger disk"
        )
    else:
        yield _found(Level.OK, f"{size(missing)} of named checkpoints still to come, {size(free)} free")


def _begun(store: Store, digest: Digest) -> int:
    return max((allocated(path) for path in store.layout.partials(digest)), default=0)
