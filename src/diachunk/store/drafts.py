"""Drafts: files being fetched of which only the size and a whole-file digest are known, not the chunks.

A draft's pieces are kept as they came; nobody vouches for them until the whole file has the digest that was stated.
Only then does it become a blob, under the BLAKE3 that this machine computed, and never before.

    drafts/<key>.partial    the pieces, at final offsets
    drafts/<key>.sums       which pieces were written and the BLAKE3 each had: what a resume compares them with
    drafts/<key>.json       done: which blob it became, and its chunks, until a manifest says so
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

from diachunk.bitmap import Bitmap
from diachunk.chunking.hashes import Hashes
from diachunk.chunking.verify import BadChunk, Chunk, ChunkRef, MeasuredChunk
from diachunk.digest import DIGEST_BYTES, Digest, is_git_id, parse_digest
from diachunk.errors import StoreError, os_errors
from diachunk.manifest.model import ChunkList
from diachunk.manifest.stated import StatedFile
from diachunk.store.blobs import Blobs, Presence
from diachunk.store.extents import allocated
from diachunk.store.files import Files, read_hint, regular
from diachunk.store.layout import Layout
from diachunk.store.partial import Partial
from diachunk.store.stamps import Stamp

_RECORD = struct.Struct(f"<Q{DIGEST_BYTES}s")
_REWRITES_MAX = 4
"""How often a piece may have been fetched anew before the journal is too long to be ours."""


class Draft(Partial):
    """A file being fetched whose chunks are not known yet; a `transfer.sink.Sink`.

    It takes any bytes for a piece that comes from elsewhere. Pieces that were here are compared with what the
    journal says they were when they came: a torn or rotten one is fetched again.

    Attributes:
        homes: where its file lies; the blob that it becomes is added before it is renamed.
    """

    _takes = MeasuredChunk
    _sums_fd = -1

    def __init__(
        self, path: Path, pieces: ChunkList, files: Files, finish: Callable[[Partial], None] | None = None
    ) -> None:
        self._sums_path = path.with_suffix(".sums")
        self.homes = [path]
        self._doubted: Callable[[], None] | None = None
        super().__init__(path, pieces, files, finish)
        self._sums = self._read_sums()

    def _read_sums(self) -> dict[int, Digest]:
        limit = _RECORD.size * len(self.chunks) * _REWRITES_MAX
        data = read_hint(self._sums_path, limit)
        whole = len(data) - len(data) % _RECORD.size if data else 0
        found: dict[int, Digest] = {}
        for index, digest in _RECORD.iter_unpack(data[:whole] if data else b""):
            if index < len(self.chunks):
                found[index] = digest
        # What is appended to half a record could not be read; nor could one that is too long, ever again.
        if self._owned and (data is None or whole < len(data) or whole > limit // 2):
            with contextlib.suppress(OSError, StoreError):
                self._rewrite_sums(found)
        return found

    def _rewrite_sums(self, known: dict[int, Digest]) -> None:
        """Says each thing once. In place, since a neighbour may be appending; halves of both are records still."""
        if not known:
            self._files.unlink(self._sums_path)
            return
        data = b"".join(_RECORD.pack(index, digest) for index, digest in known.items())
        fd = os.open(self._sums_path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._files.pwrite(fd, memoryview(data), 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def _open_sums(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._sums_path, flags, 0o600)
        if os.fstat(fd).st_uid == os.geteuid():
            os.fchmod(fd, self._files.file_mode)
        return fd

    def claimed(self) -> Bitmap:
        """Pieces in allocated extents of which the journal knows what they were."""
        return Bitmap(len(self.chunks), (index for index in super().claimed() if index in self._sums))

    def judge(self, ref: ChunkRef, view: memoryview, *, local: bool) -> Chunk:
        if len(view) != ref.size:
            raise BadChunk(ref)
        chunk = MeasuredChunk(ref, view)
        if local and self._sums.get(self._index(ref.offset), chunk.digest) != chunk.digest:
            raise BadChunk(ref)
        return chunk

    def write(self, chunk: Chunk, offset: int) -> None:
        super().write(chunk, offset)
        assert isinstance(chunk, MeasuredChunk)
        index = self._index(offset)
        self._sums[index] = chunk.digest
        with os_errors("write", self._sums_path), self._write_lock:
            if self._sums_fd < 0:
                self._sums_fd = self._open_sums()
            os.write(self._sums_fd, _RECORD.pack(index, chunk.digest))

    @property
    def sums(self) -> dict[int, Digest]:
        """A copy: the BLAKE3 that each piece had when it came, by its number."""
        return self._sums.copy()

    def on_doubt(self, told: Callable[[], None]) -> None:
        """Tells when the whole turns out not to be what was stated: on the thread that found out."""
        self._doubted = told

    def doubt(self) -> None:
        """The whole is not what was stated: who shows its pieces to others is told to stop."""
        told = self._doubted
        if told is not None:
            told()

    def close(self) -> None:
        super().close()
        with self._write_lock:
            if self._sums_fd >= 0:
                os.close(self._sums_fd)
                self._sums_fd = -1

    def discard(self) -> None:
        """Throws away every piece: the whole was not what was stated. Nobody else may be at work on it."""
        self.doubt()
        super().discard()
        with contextlib.suppress(StoreError):
            self._files.unlink(self._sums_path)


class Drafts:
    """The drafts of one store."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def path(self, file: StatedFile) -> Path:
        return self._layout.draft(file.key, "partial")

    def open(self, file: StatedFile, verdict: Callable[[Partial], Hashes | None]) -> Draft:
        """The draft of a stated file, made if it is not there.

        Args:
            verdict: called once every piece is in place and flushed: the file's digests, or None unless they are
                what was stated; then it stays a draft.
        """
        path = self.path(file)
        if regular(path) is None and os.path.lexists(path):
            with os_errors("repair", path):
                self._layout.files.move_aside(path)

        def finish(partial: Partial) -> None:
            if (hashes := verdict(partial)) is not None:
                draft.homes.append(self._layout.blob(hashes.blake3))
                self._finish(file, partial, hashes)

        draft = Draft(path, file.pieces(), self._layout.files, finish)
        return draft

    def _finish(self, file: StatedFile, partial: Partial, hashes: Hashes) -> None:
        """It is what was stated: under the name that it has as a blob, with its stamp. Durable once this returns."""
        stamp = Stamp.of(os.fstat(partial.fd)).adding(
            chunk_list=chunk_list(hashes).id,
            blake3=hashes.blake3.hex(),
            sha256=hashes.sha256,
            git=hashes.git,
        )
        # Said first: a crash in between leaves a record of a blob that is not there, which is looked for in vain.
        self.note(file, hashes)
        self._blobs.take_in(hashes.blake3, partial.path, stamp)
        self._layout.files.unlink(partial.path.with_suffix(".sums"))

    def disk_bytes(self) -> int:
        """What all drafts take on the disk."""
        directory = self._layout.root / "drafts"
        with os_errors("read", directory):
            names = os.listdir(directory) if directory.is_dir() else []
        return sum(allocated(directory / name) for name in names if name.endswith(".partial"))

    # --- what became of them -------------------------------------------------------------------------------

    def note(self, file: StatedFile, hashes: Hashes) -> None:
        """Remembers which blob a stated file is, until a manifest does (`forget`)."""
        record = {
            "stated": file.stated,
            "size": hashes.size,
            "blake3": hashes.blake3.hex(),
            "sha256": hashes.sha256,
            "git": hashes.git,
            "rule": hashes.rule,
            "sizes": list(hashes.sizes),
            "digests": hashes.digests.hex(),
        }
        path = self._layout.draft(file.key, "json")
        self._layout.files.replace_text(path, json.dumps(record).encode())

    def recall(self, file: StatedFile) -> Hashes | None:
        """What a finished draft became, if the blob is here and was proven to be what was stated."""
        hashes = self._recorded(file)
        if hashes is None:
            return None
        holding = self._blobs.find(hashes.blake3, hashes.size, chunk_list(hashes))
        return hashes if holding.presence is Presence.PROVEN else None

    def claimed(self, file: StatedFile) -> Path | None:
        """The blob that a finished draft became, where nothing proves that any more: a crash took its stamp, or a
        neighbour is about to write it.
        """
        hashes = self._recorded(file)
        own = self._layout.blob(hashes.blake3) if hashes else None
        return own if own is not None and regular(own) is not None else None

    def _recorded(self, file: StatedFile) -> Hashes | None:
        # 80 bytes a chunk; a chunk can be as small as a byte only in a hostile file.
        data = read_hint(self._layout.draft(file.key, "json"), 4096 + 200 * (file.size // 1024 + 1024))
        hashes = _parse_record(data) if data else None
        return hashes if hashes is not None and matches(file, hashes) else None

    def forget(self, file: StatedFile) -> None:
        """A manifest knows it now. The journal is there still if a run was killed right after the rename."""
        for suffix in ("json", "sums"):
            with contextlib.suppress(StoreError):
                self._layout.files.unlink(self._layout.draft(file.key, suffix))


def chunk_list(hashes: Hashes) -> ChunkList:
    """The chunks of a file that was hashed here."""
    return ChunkList(hashes.digests, hashes.sizes)


def matches(file: StatedFile, hashes: Hashes) -> bool:
    """Whether digests computed here are what was stated. All that is stated has to be right."""
    return (
        hashes.size == file.size
        and (not file.sha256 or hashes.sha256 == file.sha256)
        and (not file.git or hashes.git == file.git)
    )


def needed_blob(path: Path) -> Digest | None:
    """The blob that a `.json` record keeps from being collected; None if it is no record."""
    data = read_hint(path, 1 << 30)
    hashes = _parse_record(data) if data else None
    return hashes.blake3 if hashes else None


def _parse_record(data: bytes) -> Hashes | None:
    try:
        value = json.loads(data)
        hashes = Hashes(
            int(value["size"]),
            parse_digest(value["blake3"]),
            parse_digest(value["sha256"]).hex(),
            str(value["git"]),
            array("I", value["sizes"]),
            bytes.fromhex(value["digests"]),
            str(value["rule"]),
        )
        whole = len(hashes.digests) == DIGEST_BYTES * len(hashes.sizes) and sum(hashes.sizes) == hashes.size
        return hashes if whole and (not hashes.git or is_git_id(hashes.git)) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
