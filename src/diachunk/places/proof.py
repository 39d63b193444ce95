"""Which files are here and proven, and under which digests: nothing takes a name that was not computed here."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from diachunk.digest import git_hasher, hasher
from diachunk.errors import IntegrityError, StoreError, from_os_error
from diachunk.limits import MiB
from diachunk.manifest import FileEntry
from diachunk.places.workers import Teller, at_once
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.files import regular
from diachunk.store.stamps import Stamp, read_stamp, write_stamp
from diachunk.store.store import Store

_PIECE_BYTES = 4 * MiB


@dataclass(frozen=True, slots=True)
class Held:
    """A complete file whose every chunk was verified here.

    Attributes:
        stamp: what it was when that was so, and the digests computed over it.
        adopted: the record, if it is a file outside the store.
    """

    file: FileEntry
    path: Path
    stamp: Stamp
    adopted: AdoptedFile | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """A file of a component, and the digest ("sha256", "git" or "") under which it is to be named."""

    component: str
    file: FileEntry
    algorithm: str = ""

    @property
    def label(self) -> str:
        return "/".join(filter(None, (self.component, self.file.path)))


class Running(Protocol):
    """A running hash."""

    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def find_held(store: Store, need: Need) -> Held | None:
    """The file in the store, or adopted; None unless it is complete and proven. Reads nothing of it."""
    file = need.file
    holding = store.blobs.find(file.blake3, file.size, file.chunks)
    if holding.presence is not Presence.PROVEN or holding.path is None:
        return None
    if holding.adopted is not None:
        return Held(file, holding.path, holding.adopted.stamp, holding.adopted)
    status, stamp = regular(holding.path), read_stamp(store.layout.stamp(file.blake3))
    if status is None or stamp is None or not stamp.proves(status, file.chunks.id):
        return None
    return Held(file, holding.path, stamp)


def missing_digests(needs: Sequence[Need], held: Sequence[Held]) -> list[int]:
    """Which of them have to be read before they can be named."""
    return [number for number, need in enumerate(needs) if need.algorithm and not _known(need, held[number])]


def prove(store: Store, needs: Sequence[Need], held: Sequence[Held], tell: Teller) -> list[Held]:
    """Computes the digests that are missing, each file once, several at a time, and keeps them in the stamps.

    Raises:
        IntegrityError: the manifest says another digest than the bytes have.
        StoreError: a file cannot be read, or changed while it was.
    """
    done = list(held)
    to_read = missing_digests(needs, held)
    digests = at_once(lambda number, told: _read(needs[number], held[number], told), to_read, tell)
    for number, digest in zip(to_read, digests, strict=True):
        done[number] = _keep(store, needs[number], held[number], digest)
    for need, file in zip(needs, done, strict=True):
        wanted = getattr(need.file, need.algorithm) if need.algorithm else ""
        if need.algorithm and _known(need, file) != wanted:
            raise IntegrityError(
                f"{need.label}: its {need.algorithm} is {_known(need, file)[:16]}…, not {wanted[:16]}… as the "
                "manifest says; nothing was placed",
                hint="do not use this manifest",
            )
    return done


def _known(need: Need, held: Held) -> str:
    return held.stamp.git if need.algorithm == "git" else held.stamp.sha256


def _read(need: Need, held: Held, tell: Teller) -> str:
    running: Running = git_hasher(need.file.size) if need.algorithm == "git" else hashlib.sha256()
    before = hash_into(held.path, [running], lambda size: tell(need.component, size))
    if not held.stamp.same_file(before):
        raise StoreError(f"{held.path} was changed", hint="`diachunk verify` says what is wrong")
    return running.hexdigest()


def _keep(store: Store, need: Need, held: Held, digest: str) -> Held:
    """Adds a digest to the stamp; what else was proven meanwhile, by others, stays. That only saves work: where it
    cannot be written, the next run reads again.
    """
    sha256, git = ("", digest) if need.algorithm == "git" else (digest, "")
    stamp = held.stamp.adding(sha256=sha256, git=git)
    if held.adopted is not None:
        adopted = replace(held.adopted, stamp=stamp)
        with contextlib.suppress(StoreError):
            store.blobs.adopted.put(need.file.blake3, adopted)
        return replace(held, stamp=stamp, adopted=adopted)
    path = store.layout.stamp(need.file.blake3)
    newest = read_stamp(path)
    if newest is not None and newest.same_file(held.stamp):
        stamp = newest.adding(sha256=sha256, git=git)
    with contextlib.suppress(StoreError):
        write_stamp(store.layout.files, path, stamp)
    return replace(held, stamp=stamp)


def hash_into(path: Path, hashes: Iterable[Running], read: Callable[[int], None]) -> Stamp:
    """Reads a whole file into running hashes, in bounded memory.

    Returns:
        What the file was, before and after.

    Raises:
        StoreError: it cannot be read, is no regular file, or changed meanwhile.
    """
    hashes = list(hashes)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = Stamp.of(os.fstat(fd))
            buffer, offset = memoryview(bytearray(min(_PIECE_BYTES, before.size + 1))), 0
            while size := os.preadv(fd, [buffer], offset):
                for each in hashes:
                    each.update(buffer[:size])
                read(size)
                offset += size
            after = Stamp.of(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise from_os_error(error, "read", path) from error
    if not before.same_file(after) or offset != before.size:
        raise StoreError(f"{path} changed while it was read", hint="run the same again")
    return before


def blake3_of(path: Path, read: Callable[[int], None]) -> tuple[bytes, Stamp]:
    """BLAKE3 of a whole file, links followed, and what it was. See hash_into for what is raised."""
    running = hasher()
    before = hash_into(path, [running], read)
    return running.digest(), before
