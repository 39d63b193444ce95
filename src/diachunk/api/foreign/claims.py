"""Adopting: what the machine already has is used where it lies, never copied, and never changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diachunk.api.context import Context
from diachunk.api.foreign.local_files import find_foreign, find_prefixes
from diachunk.errors import StoreError
from diachunk.places import Wanted
from diachunk.schedule.work import BlobFacts
from diachunk.store.adopted import Adopted, AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.stamps import Stamp
from diachunk.transfer.progress import Listener, Notice, silent

Directories = Iterable[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Located:
    """A wanted file and where it may be: `whole` files of its size, and `parts` that may hold some of it."""

    facts: BlobFacts
    whole: tuple[Path, ...] = ()
    parts: tuple[Path, ...] = ()


def adopt_known(
    context: Context, files: Sequence[BlobFacts], listener: Listener = silent, directories: Directories = ()
) -> int:
    """Notes where the caches of other programs (and `directories`) may hold these files.

    Nothing is read: the notes are claims, which the engine proves or gives up, and damaged or unfinished files become
    donors of their chunks. A stat a candidate; a store that cannot be written to is left as it is.

    Returns:
        The bytes of those files for which there is such a claim now and was none before.
    """
    claimed = 0
    try:
        for located in locate(context, files, directories):
            claimed += _note(context.store.blobs.adopted, located)
    except StoreError:
        return claimed  # it only saves work; what is really wrong will be said by who needs the store
    if claimed:
        listener(Notice(f"{claimed / 1e6:,.1f} MB may be here already, in other programs' caches"))
    return claimed


def locate(context: Context, files: Sequence[BlobFacts], directories: Directories = ()) -> list[Located]:
    """Where those of the files may be that are not here and proven.

    Raises:
        StoreError: the store cannot be read.
    """
    find = context.store.blobs.find
    lacking = {
        facts.digest: facts
        for facts in files
        if facts.size and find(facts.digest, facts.size, facts.chunks).presence is not Presence.PROVEN
    }
    missing = list(lacking.values())
    if not missing:
        return []
    wanted = [_wanted(facts) for facts in missing]
    directories = tuple(directories)
    whole = find_foreign(context, wanted, directories)
    parts = find_prefixes(context, wanted, directories)
    return [
        Located(facts, tuple(whole.get(index, ())), tuple(parts.get(index, ())))
        for index, facts in enumerate(missing)
        if index in whole or index in parts
    ]


def _wanted(facts: BlobFacts) -> Wanted:
    return Wanted(facts.size, facts.sha256, facts.git, PurePosixPath(facts.path).name)


def _note(adopted: Adopted, located: Located) -> int:
    """Records what is new; returns the file's size if one of them may be the whole of it, and none was known to."""
    facts = located.facts
    known = {file.path: file for file in adopted.get(facts.digest) if file.unchanged() is not None}
    claimed = any(not file.spoiled for file in known.values())
    gained = False
    for path in (*reversed(located.parts), *reversed(located.whole)):  # what is put last is looked at first
        spoiled = path in located.parts
        stamp = None if path in known else _stamp(path)
        if stamp is not None and (stamp.size == facts.size) != spoiled:
            adopted.put(facts.digest, AdoptedFile(path, stamp, spoiled=spoiled), durable=False)
            gained = gained or not spoiled
    return facts.size if gained and not claimed else 0


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except (OSError, ValueError):
        return None
