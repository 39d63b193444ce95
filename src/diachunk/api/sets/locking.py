"""The lock of a project in use: what it says of each target, and what is added to it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path

from diachunk.api.sets.lockfile import Entry, read_lock, write_lock
from diachunk.errors import StoreError, TrustError, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.parts import whole_of
from diachunk.transfer.plan import Plan

_TOLD = 4
_UPDATE = "`diachunk fetch --update` takes what is wanted now and rewrites the lock"


class Locking(enum.Enum):
    """What the lock is for in a run."""

    KEEP = "keep"
    """What it says is kept to; what it lacks is added."""
    UPDATE = "update"
    """Every target is looked up anew, and the lock rewritten."""
    EXACT = "exact"
    """It covers everything and is never written: exactly those ids, or an error."""


class ProjectLock:
    """The entries for the targets of a project file; those of other targets are dropped when it is written.

    Attributes:
        path: the lock file.
    """

    def __init__(self, path: Path, targets: Sequence[str], mode: Locking) -> None:
        """Reads the lock.

        Raises:
            UsageError: it is damaged; or it has to be exact, and is missing or lacks a target.
        """
        self.path = path
        self._mode = mode
        self._trouble: StoreError | None = None
        found = self._read()
        if mode is Locking.EXACT:
            _check_covers(path, found, targets)
        self._entries = {target: found[target] for target in targets if found and target in found}

    def _read(self) -> dict[str, Entry] | None:
        try:
            return read_lock(self.path)
        except UsageError:
            if self._mode is Locking.UPDATE:
                return None  # half a merge, say: to be written anew
            raise

    def entry(self, target: str) -> Entry | None:
        """What a target has to be; None where that is open."""
        return None if self._mode is Locking.UPDATE else self._entries.get(target)

    def note(self, target: str, manifest: Manifest) -> str:
        """Writes down what a target was, at once: what is complete is locked also after Ctrl-C.

        Returns:
            Why it could not be written, the first time; "" else. Where that was the point of the run, `close` says it.
        """
        if self.entry(target) is not None:  # always so where the lock has to be exact
            return ""
        self._entries[target] = Entry.of(target, manifest)
        try:
            write_lock(self.path, self._entries.values())
        except StoreError as error:
            first, self._trouble = self._trouble is None, error
            return error.message if first and self._mode is Locking.KEEP else ""
        return ""

    def close(self) -> None:
        """To be called in the end.

        Raises:
            StoreError: the lock was to be renewed, and could not be written.
        """
        if self._trouble is not None and self._mode is Locking.UPDATE:
            raise self._trouble


def check_stored(entry: Entry, manifest: Manifest, wanted: Iterable[str]) -> None:
    """Whether a manifest that is here is what was locked; and if that is a part of a recipe, whether it has the
    components that are wanted now.

    Raises:
        TrustError: it is another one, or lacks some of them.
    """
    entry.check(manifest)
    names = [each.name for each in manifest.components]
    lacking = [each for each in wanted if each not in names]
    if lacking and whole_of(manifest.revision, names):
        raise TrustError(
            f"{entry.target} is locked to {entry.hex_id}, which is {manifest.ref}, without {', '.join(lacking)}",
            hint=_UPDATE,
        )


def check_planned(entry: Entry, plan: Plan) -> None:
    """Whether what is to be fetched is what was locked, as far as that can be told before.

    Raises:
        TrustError: it is something else; says how much the locked one is.
    """
    if plan.manifest is not None:
        return entry.check(plan.manifest)
    if (plan.name, plan.revision) != (entry.name, entry.revision):
        raise TrustError(
            f"{entry.target} is locked to {entry.hex_id}, which is {entry.name}@{entry.revision} "
            f"({entry.total_bytes:,} bytes), but {plan.ref} is what is wanted of it now",
            hint=_UPDATE,
        )
    return entry.check_upstreams(plan.upstreams)


def _check_covers(path: Path, found: dict[str, Entry] | None, targets: Sequence[str]) -> None:
    if found is None:
        raise UsageError(f"{path}: no such lock", hint="`diachunk fetch` writes it")
    missing = [target for target in targets if target not in found]
    if missing:
        more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
        raise UsageError(
            f"{path} does not cover {', '.join(missing[:_TOLD])}{more}",
            hint="`diachunk fetch` adds what is missing",
        )
