"""Where a checkpoint's files become present: the store, or a directory that the user named (`--to`)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from diachunk.digest import Digest, digest_of
from diachunk.errors import StoreError, from_os_error, os_errors
from diachunk.schedule.work import BlobFacts
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Holding, Presence
from diachunk.store.files import Files
from diachunk.store.locks import BusyLock
from diachunk.store.partial import Partial
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from diachunk.transfer.check import Checked


class Destination(Protocol):
    """Finds, proves, demotes and opens the files of a checkpoint in one kind of place."""

    merges_equal_files: bool
    """Whether files of equal content are one (a store), or each path needs its own (a directory)."""
    root: Path
    """The directory below which all of it lies."""

    def find(self, facts: BlobFacts) -> Holding:
        """What is there, without reading bytes."""
        ...

    def locate(self, facts: BlobFacts) -> Path | None:
        """The complete file, for reading only: links in a directory of the user's are followed."""
        ...

    def prove(self, facts: BlobFacts, holding: Holding, identity: Stamp) -> None:
        """Every chunk was verified on the held file, which was `identity` before it was read."""
        ...

    def give_up_on(self, holding: Holding, checked: Checked) -> Path | None:
        """The held file is damaged: makes room for a good one without losing anything of the user's.

        Returns:
            Where its bytes are now, good chunks and all; None if they are gone.

        Raises:
            StoreError: the file is the user's own and stands in the way.
        """
        ...

    def partial(self, facts: BlobFacts) -> Path:
        """Where the partial of a file lies, whether it is there or not."""
        ...

    def open(self, facts: BlobFacts) -> Partial:
        """The partial to fill."""
        ...

    def free_bytes(self) -> int: ...


class StoreDestination:
    """Blobs of the store."""

    merges_equal_files = True

    def __init__(self, store: Store) -> None:
        self._store, self.root = store, store.root

    def find(self, facts: BlobFacts) -> Holding:
        return self._store.blobs.find(facts.digest, facts.size, facts.chunks)

    def locate(self, facts: BlobFacts) -> Path | None:
        return self.find(facts).path

    def prove(self, facts: BlobFacts, holding: Holding, identity: Stamp) -> None:
        self._store.blobs.prove(facts.digest, holding, facts.chunks.id, identity)

    def give_up_on(self, holding: Holding, checked: Checked) -> Path | None:
        facts = checked.facts
        if holding.adopted is not None:
            self._store.blobs.disown(facts.digest, holding.adopted)
            return holding.path
        # Where blocks cannot be read nothing is mended in place: the kernel would have to read the rest of a page.
        return self._store.blobs.demote(
            facts.digest, facts.chunks, checked.identity, in_place=not checked.unreadable
        )

    def partial(self, facts: BlobFacts) -> Path:
        return self._store.layout.partial(facts.digest, facts.chunks.id)

    def open(self, facts: BlobFacts) -> Partial:
        return self._store.blobs.open_partial(facts.digest, facts.chunks)

    def free_bytes(self) -> int:
        return self._store.layout.free_bytes()


class DirectoryDestination:
    """`DIR/<component>/<path>`, walked with open directories and O_NOFOLLOW: no link can lead outside.

    Files put here are recorded as adopted and ours, so that they serve as donors and can be replaced later.
    Files that were here before are the user's: kept if they are right, refused (unless `force`) if not.
    """

    merges_equal_files = False

    def __init__(self, store: Store, root: Path, *, force: bool = False) -> None:
        self._store = store
        self.root = Path(os.path.abspath(root))
        self._force = force
        self._given_up: dict[Path, Stamp] = {}
        self._busy: dict[Path, BusyLock] = {}
        self._durable: set[Path] = set()
        self._settled: set[Path] = set()

    def path(self, facts: BlobFacts) -> Path:
        return self.root / facts.component / facts.path

    def find(self, facts: BlobFacts) -> Holding:
        path = self.path(facts)
        status = self._status(facts)
        if status is None:
            return Holding(Presence.ABSENT)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path} is in the way and no regular file", hint="move it, then run again")
        given_up = self._given_up.get(path)
        if given_up is not None and given_up.matches(status):
            return Holding(Presence.ABSENT)
        record = self._record(facts.digest, path)
        if record is None:
            return Holding(Presence.CLAIMED, path)
        proven = status.st_size == facts.size and record.stamp.proves(status, facts.chunks.id)
        if proven and path.parent not in self._settled:
            # The record was written before the file took its name: of that it proves nothing.
            self._store.layout.files.settle(path.parent)
            self._settled.add(path.parent)
        return Holding(Presence.PROVEN if proven else Presence.CLAIMED, path, record)

    def locate(self, facts: BlobFacts) -> Path | None:
        path = self.path(facts)
        with os_errors("look at", path):
            return path if path.is_file() else None

    def prove(self, facts: BlobFacts, holding: Holding, identity: Stamp) -> None:
        path = self.path(facts)
        self._store.layout.files.settle(path.parent)
        stamp = identity.adding(chunk_list=facts.chunks.id)
        ours = holding.adopted is not None and holding.adopted.ours
        self._store.blobs.adopted.put(facts.digest, AdoptedFile(path, stamp, ours))

    def give_up_on(self, holding: Holding, checked: Checked) -> Path | None:
        """The file stays until a good one takes its name; from here on it only no longer counts."""
        facts = checked.facts
        path = self.path(facts)
        known = self._store.blobs.adopted.by_path(path)
        ours = known is not None and known[1].ours and known[1].unchanged() is not None
        if not ours and not self._force:
            raise StoreError(
                f"{path} differs and diachunk did not put it there as it is now",
                hint="move it away, or --force to replace it",
            )
        with os_errors("look at", path):
            stamp = Stamp.of(path.stat())
        self._given_up[path] = stamp
        if known is not None and known[0] == facts.digest:
            # Ours to replace as before, also if this run fails, but no longer proof of anything.
            self._store.blobs.adopted.put(facts.digest, replace(known[1], stamp=stamp, ours=ours))
        return path

    def partial(self, facts: BlobFacts) -> Path:
        # The path's own digest keeps files of equal content apart: each of them needs a partial of its own.
        own = digest_of(facts.label.encode()).hex()[:12]
        name = f".{own}.{facts.digest.hex()[:16]}.{facts.chunks.id.hex()[:8]}.diachunk-partial"
        return self.path(facts).with_name(name)

    def open(self, facts: BlobFacts) -> Partial:
        try:
            if not self._durable:
                self._store.layout.files.make_root(self.root)
                self._durable.add(self.root)
            files = Files(stat.S_IMODE(self.root.stat().st_mode))
        except OSError as error:
            raise _blocked(error, self.root, self.root, "create") from error
        return Partial(
            self.partial(facts),
            facts.chunks,
            files,
            lambda partial: self._finish(facts, partial),
            self._dir(facts, make=True),
            self._busy_with(facts),
        )

    def _busy_with(self, facts: BlobFacts) -> BusyLock:
        path = self._store.layout.partial(facts.digest, facts.chunks.id)
        lock = self._busy.get(path)
        if lock is None or not lock.holders:
            lock = self._busy[path] = BusyLock(path, self._store.layout.files)
        return lock

    def _finish(self, facts: BlobFacts, partial: Partial) -> None:
        path = self.path(facts)
        self._refuse_newcomer(facts, path)
        files, adopted = self._store.layout.files, self._store.blobs.adopted
        stamp = Stamp.of(os.fstat(partial.fd)).adding(chunk_list=facts.chunks.id)
        record = AdoptedFile(path, stamp, ours=True)
        # Written ahead: stopped between the two, the file would count as the user's for ever.
        adopted.put(facts.digest, record, beside=True)
        files.rename(Path(partial.path.name), Path(path.name), dir_fd=partial.dir_fd)
        if partial.dir_fd is not None:
            files.flush_dir(partial.dir_fd)
        for digest in adopted.digests_of(path) if path in self._given_up else ():
            if digest != facts.digest:
                adopted.drop(digest, path)
        adopted.put(facts.digest, record)

    def _refuse_newcomer(self, facts: BlobFacts, path: Path) -> None:
        """A file that appeared, or was changed, while this one was fetched is the user's."""
        status = self._status(facts)
        if status is None or self._force:
            return
        given_up = self._given_up.get(path)
        if given_up is None or not given_up.matches(status):
            raise StoreError(
                f"{path} appeared or was changed while it was fetched",
                hint="move it away, or --force to replace it; then run again: nothing is fetched twice",
            )

    def free_bytes(self) -> int:
        with os_errors("look at", self.root):
            there = next(each for each in (self.root, *self.root.parents) if each.exists())
            status = os.statvfs(there)
        return status.f_bavail * status.f_frsize

    def _record(self, digest: Digest, path: Path) -> AdoptedFile | None:
        return next(iter(self._store.blobs.adopted.of(digest, path)), None)

    def _status(self, facts: BlobFacts) -> os.stat_result | None:
        try:
            dir_fd = self._dir(facts, make=False)
        except FileNotFoundError:
            return None
        try:
            return os.stat(self.path(facts).name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, "look at", self.path(facts)) from error
        finally:
            os.close(dir_fd)

    def _dir(self, facts: BlobFacts, *, make: bool) -> int:
        """Opens the directory that holds the file, from the root down; the caller closes it."""
        relative, where = self.path(facts).parent.relative_to(self.root), self.root
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            fd = os.open(self.root, flags)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _blocked(error, self.root, self.root) from error
        for part in relative.parts:
            try:
                if make:
                    where /= part
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                    if where not in self._durable:
                        self._store.layout.files.flush_dir(fd)
                        self._durable.add(where)
                deeper = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _blocked(error, self.root, self.root / relative) from error
            finally:
                os.close(fd)
            fd = deeper
        return fd


def _blocked(error: OSError, root: Path, directory: Path, doing: str = "enter") -> StoreError:
    """Maps an OSError met on the way down to a directory; what is no directory on that way is named."""
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
        for each in (*reversed(directory.parents), directory):
            link = os.path.islink(each) and root in each.parents
            if link or (os.path.lexists(each) and not os.path.isdir(each)):
                why = ": nothing is written through a link" if link else ""
                return StoreError(
                    f"{each} is in the way and no directory{why}",
                    hint="move it, or name another directory with --to; then run again",
                    errno=error.errno,
                )
    return from_os_error(error, doing, directory)
