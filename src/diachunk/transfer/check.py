"""Verify: the session's walk with the file itself as the only source, writing nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.limits import Limits
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.local import LocalFiles
from diachunk.store.stamps import Stamp
from diachunk.transfer.progress import How, Listener, silent
from diachunk.transfer.session import Offer, Session
from diachunk.transfer.sink import NullSink


@dataclass(frozen=True, slots=True)
class Checked:
    """What reading one file found.

    Attributes:
        good: chunks whose bytes match (of the subset, if one was asked for).
        bad: chunks whose bytes do not, in file order; those past the end of a file cut short included.
        identity: the file as it was before it was read; None if it was not there or no regular file.
        unreadable: why the system refused some of its bytes ("Input/output error"), or "": then nobody knows
            whether those are wrong.
    """

    facts: BlobFacts
    path: Path
    good: Bitmap
    bad: tuple[int, ...]
    identity: Stamp | None
    unreadable: str = ""

    @property
    def actual_size(self) -> int | None:
        """Bytes that the file really has; None if it is not there or is no regular file."""
        return None if self.identity is None else self.identity.size

    @property
    def still_there(self) -> bool:
        """Whether the file is the one that was read, untouched since."""
        now = _identity(self.path)
        return now is not None and now == self.identity

    @property
    def right(self) -> bool:
        return not self.bad and self.actual_size == self.facts.size


def check_files(
    files: Sequence[tuple[BlobFacts, Path]],
    limits: Limits,
    *,
    leave_out: Sequence[Bitmap | None] | None = None,
    listener: Listener = silent,
) -> list[Checked]:
    """Reads each file once and compares every chunk with its digest.

    Raises:
        Interrupted: Ctrl-C.
    """
    identities = [_identity(path) for _, path in files]
    work = WorkList([facts for facts, _ in files], distinct=False, leave_out=leave_out)
    source = LocalFiles("the files", len(work))
    for number, (facts, path) in enumerate(files):
        identity = identities[number]
        for item in work.items_of(number):
            if identity is not None and work.offset(item) + work.size(item) <= identity.size:
                source.claim(item, path, facts.chunks.offsets[work.chunk_of(item)])
    sinks = [NullSink() for _ in files]
    session = Session(
        work, sinks, [Offer(source, source.has)], limits, listener=listener, local_how=How.HASHED
    )
    outcome = session.run()
    bad: dict[int, list[int]] = {}
    for item in outcome.missing:
        bad.setdefault(work.blob_of(item), []).append(work.chunk_of(item))
    return [
        Checked(
            facts,
            path,
            _good(work, number, bad.get(number, [])),
            tuple(bad.get(number, ())),
            identities[number],
            source.errors.get(path, ""),
        )
        for number, (facts, path) in enumerate(files)
    ]


def _good(work: WorkList, number: int, bad: Sequence[int]) -> Bitmap:
    good = Bitmap(len(work.blobs[number].chunks), (work.chunk_of(item) for item in work.items_of(number)))
    for index in bad:
        good.discard(index)
    return good


def _identity(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return Stamp.of(status) if stat.S_ISREG(status.st_mode) else None
