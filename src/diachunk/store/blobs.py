"""What the store holds of a blob, and how a partial becomes one. A blob is named by its BLAKE3 digest."""

from __future__ import annotations

import enum
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.digest import Digest, hasher
from diachunk.errors import ManifestError, from_os_error, os_errors
from diachunk.limits import MiB
from diachunk.manifest.model import ChunkList
from diachunk.store.adopted import Adopted, AdoptedFile
from diachunk.store.files import regular
from diachunk.store.layout import Layout
from diachunk.store.partial import Partial, Vanished
from diachunk.store.stamps import Stamp, read_stamp, write_stamp


class Presence(enum.Enum):
    """What is known of a blob before anything is read."""

    PROVEN = "verified before and untouched since"
    CLAIMED = "complete, but its bytes are only a claim"
    PARTIAL = "being assembled"
    ABSENT = "not here"


@dataclass(frozen=True, slots=True)
class Holding:
    """A blob as found. `path` is the complete file (the store's own, or adopted), None unless complete."""

    presence: Presence
    path: Path | None = None
    adopted: AdoptedFile | None = None


class Blobs:
    """The blobs of one store."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.adopted = Adopted(layout)

    def find(self, digest: Digest, size: int, chunks: ChunkList) -> Holding:
        """Looks for a blob. Never reads its bytes."""
        own = self.layout.blob(digest)
        claimed: Holding | None = None
        status = regular(own)
        if status is not None:
            stamp = read_stamp(self.layout.stamp(digest))
            if status.st_size == size and stamp is not None and stamp.proves(status, chunks.id):
                return Holding(Presence.PROVEN, own)
            claimed = Holding(Presence.CLAIMED, own)
        for file in self.adopted.get(digest):
            outside = None if file.spoiled else file.unchanged()
            if outside is None or outside.st_size != size:
                continue
            if file.stamp.proves(outside, chunks.id):
                return Holding(Presence.PROVEN, file.path, file)
            claimed = claimed or Holding(Presence.CLAIMED, file.path, file)
        if claimed:
            return claimed
        return Holding(Presence.PARTIAL if self.layout.partials(digest) else Presence.ABSENT)

    def holds(self, digest: Digest, size: int) -> bool:
        """Whether a complete file of that size is here: ours (a claim: no stamp is looked at), or an adopted one on
        which something was verified once.
        """
        status = regular(self.layout.blob(digest))
        if status is not None and status.st_size == size:
            return True
        read = (file for file in self.adopted.get(digest) if file.stamp.lists or file.stamp.blake3)
        outside = (file.unchanged() for file in read if not file.spoiled)
        return any(status is not None and status.st_size == size for status in outside)

    def prove(self, digest: Digest, holding: Holding, chunk_list: Digest, identity: Stamp) -> None:
        """Every chunk of this list was verified on the held file: stamps it.

        `identity` is the file as it was *before* it was read, so that a change meanwhile is never stamped.
        """
        if holding.adopted is not None:
            old = holding.adopted.stamp
            stamp = (old if old.same_file(identity) else identity).adding(chunk_list=chunk_list)
            self.adopted.put(digest, replace(holding.adopted, stamp=stamp))
            return
        # What is proven is durable: its name may be one that was given just before a crash.
        self.layout.files.settle(self.layout.blob_dir(digest))
        known = read_stamp(self.layout.stamp(digest))
        stamp = known if known is not None and known.same_file(identity) else identity
        write_stamp(self.layout.files, self.layout.stamp(digest), stamp.adding(chunk_list=chunk_list))

    def restamp(self, digest: Digest, stamp: Stamp) -> None:
        """Records what was computed over a blob of ours that was read whole just now."""
        self.layout.files.settle(self.layout.blob_dir(digest))
        known = read_stamp(self.layout.stamp(digest))
        if known is not None and known.same_file(stamp):
            stamp = replace(stamp, lists=tuple(dict.fromkeys((*known.lists, *stamp.lists))))
        write_stamp(self.layout.files, self.layout.stamp(digest), stamp)

    def disown(self, digest: Digest, file: AdoptedFile) -> None:
        """An adopted file is damaged or changed: the store no longer counts on it. It is left alone."""
        self.adopted.drop(digest, file.path)

    def demote(
        self, digest: Digest, chunks: ChunkList, judged: Stamp | None = None, *, in_place: bool = True
    ) -> Path | None:
        """Renames a damaged blob of ours to its partial, so that repairing it is an ordinary fetch.

        What is no regular file (a directory or link in the blob's place) is moved aside, never followed; so is
        another user's file in a shared store, which cannot be written to.

        Args:
            judged: the file that was found to be damaged; what has taken its place since is left alone.
            in_place: False moves it aside in any case.

        Returns:
            Where the blob's bytes are now: the partial, or aside; None if it was gone or no regular file.
        """
        own = self.layout.blob(digest)
        partial = self.layout.partial(digest, chunks.id)
        try:
            status = os.stat(own, follow_symlinks=False)
            if judged is not None and not judged.matches(status):
                return None
            self.layout.files.unlink(self.layout.stamp(digest))
            is_file = stat.S_ISREG(status.st_mode)
            if is_file and in_place and self._make_writable(own):
                self.layout.files.rename(own, partial)
                where = partial
            else:
                where = self.layout.files.move_aside(own)
            self.layout.files.flush_dir(own.parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os_error(error, "repair", own) from error
        return where if is_file else None

    def _make_writable(self, own: Path) -> bool:
        try:
            os.chmod(own, self.layout.files.file_mode)
        except PermissionError:
            return False
        return True

    def open_partial(self, digest: Digest, chunks: ChunkList) -> Partial:
        """The partial of this blob under this chunk list, made if it is not there."""
        self.layout.files.make_dirs(self.layout.blob_dir(digest), self.layout.root)
        path = self.layout.partial(digest, chunks.id)
        if regular(path) is None and os.path.lexists(path):
            with os_errors("repair", path):
                self.layout.files.move_aside(path)
        return Partial(path, chunks, self.layout.files, lambda partial: self._finish(digest, partial))

    def _finish(self, digest: Digest, partial: Partial) -> None:
        """Flushed and full: under its own name, read-only, with its stamp. Durable once this returns."""
        own = self.layout.blob(digest)
        chunk_list = partial.chunks.id
        blake3 = self._settle_conflict(digest, partial)
        sha256, git = partial.names() if partial.names else ("", "")
        if os.fstat(partial.fd).st_uid == os.geteuid():
            os.fchmod(partial.fd, self.layout.files.file_mode & 0o444)
        if regular(own) is None and os.path.lexists(own):
            self.layout.files.move_aside(own)
        self._look_again(partial)
        self.layout.files.rename(partial.path, own)
        self.layout.files.flush_dir(own.parent)
        stamp = Stamp.of(os.fstat(partial.fd)).adding(
            chunk_list=chunk_list, blake3=blake3, sha256=sha256, git=git
        )
        write_stamp(self.layout.files, self.layout.stamp(digest), stamp)

    def _look_again(self, partial: Partial) -> None:
        """Where locks do nothing, another may have completed the blob and a third begun a new partial of the
        same name: renaming that one over the good blob would take it away from programs that read it.
        """
        named, ours = os.stat(partial.path, follow_symlinks=False), os.fstat(partial.fd)
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            raise Vanished(f"{partial.path} was completed by another process", hint="run the same again")

    def _settle_conflict(self, digest: Digest, partial: Partial) -> str:
        """When another chunk list claims this blob too, the whole-file hash decides which of them lies.

        Returns:
            The hex digest computed, or "" if there was no other claim.

        Raises:
            ManifestError: ours lies.
        """
        stamp = read_stamp(self.layout.stamp(digest))
        rivals = [path for path in self.layout.partials(digest) if path != partial.path]
        if not rivals and (stamp is None or set(stamp.lists) <= {partial.chunks.id.hex()}):
            return ""
        found = hash_file(partial.fd)
        if found != digest:
            raise ManifestError(
                f"the manifest's chunks make up {found.hex()[:16]}…, not {digest.hex()[:16]}… as it says",
                hint="do not use this manifest",
            )
        return found.hex()

    def take_in(self, digest: Digest, temporary: Path, stamp: Stamp) -> None:
        """Gives a file that was copied into the store and hashed there its name as a blob."""
        own = self.layout.blob(digest)
        files, where = self.layout.files, self.layout.stamp(digest)
        try:
            if regular(own) is not None:
                identity = Stamp.of(own.stat())
                if self.whole_file_matches(digest, own):
                    files.unlink(temporary)
                    files.flush_dir(own.parent)
                    write_stamp(files, where, identity.with_proofs_of(stamp))
                    return
            files.make_dirs(own.parent, self.layout.root)
            if os.path.lexists(own):
                files.move_aside(own)  # damaged, or no file at all
            os.chmod(temporary, files.file_mode & 0o444)
            files.rename(temporary, own)
            files.flush_dir(own.parent)
            write_stamp(files, where, stamp)
        except OSError as error:
            raise from_os_error(error, "write", own) from error

    def whole_file_matches(self, digest: Digest, path: Path) -> bool:
        """Hashes a whole file, for when two chunk lists contradict each other. An unreadable one does not match."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and hash_file(fd) == digest
        except OSError:
            return False
        finally:
            os.close(fd)


def hash_file(fd: int) -> Digest:
    """BLAKE3 of a whole open file, in bounded memory."""
    running = hasher()
    buffer = memoryview(bytearray(4 * MiB))
    offset = 0
    while size := os.preadv(fd, [buffer], offset):
        running.update(buffer[:size])
        offset += size
    return running.digest()
