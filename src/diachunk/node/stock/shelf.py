"""What is here and verified: the one answer to "have you got". Follows the store as other processes change it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest.statement import Shared, Statement
from diachunk.node.stock.bell import Bell
from diachunk.node.stock.disk import Disk, identity_of
from diachunk.node.stock.feed import Feed, Have
from diachunk.node.stock.growing import Growing
from diachunk.node.stock.holdings import Entry, FileHere, Identity, Key, Table
from diachunk.node.stock.inbox import Inbox
from diachunk.node.stock.stated import StatedShelf
from diachunk.node.stock.stock import Lent, Piece, Stock, piece_of
from diachunk.store.catalog import Ref
from diachunk.store.store import Store
from diachunk.transfer.company import Company

T = TypeVar("T")
POLL_S = 1.0
_FULL_LOOK_EVERY = 30
"""Polls between two looks at every file: what is changed in place shows in no directory's mtime."""
_AT_ONCE = 2048
_LOG = logging.getLogger("diachunk.node")


class Shelf:
    """Used on the loop's thread, but for `lend` and `unlend`, which may be called from any.

    Attributes:
        changed: rung when checkpoints come or go.
        verified_bytes: hashed here because somebody else wrote it.
        stated: what is here of files of which only the whole is stated.
    """

    def __init__(
        self,
        store: Store,
        lower_stores: Sequence[Store] = (),
        *,
        secret: bool,
        verify_claimed: bool = True,
        limits: Limits = DEFAULT,
    ) -> None:
        """Args:
        secret: whether all who ask know the lab's secret: private checkpoints are shown to nobody else.
        verify_claimed: hash what other processes wrote, and offer it.
        """
        self.store = store
        self.changed = Bell()
        self._verify_claimed = verify_claimed
        self._disk = Disk(store, lower_stores, secret=secret)
        self._growing = Growing(self._tell)
        self._stock = Stock(limits)
        self.stated = StatedShelf(limits, self._disk.hides, self._call)
        self._refs: list[Ref] = []
        self._lent: dict[Company, tuple[Lent, ...]] = {}
        self._inbox: Inbox[tuple[Key, Identity, int]] = Inbox(self._call, self._take)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._look_now = Bell()
        self._busy_hashing = False
        self._suspects: set[Key] = set()
        self._threads = ThreadPoolExecutor(1, "diachunk-shelf")
        self._hashing = ThreadPoolExecutor(1, "diachunk-hash")

    @property
    def verified_bytes(self) -> int:
        return self._growing.verified_bytes

    async def start(self) -> None:
        """Looks once, and then keeps looking until `close`."""
        self._loop = asyncio.get_running_loop()
        await self._look(0)
        self._task = self._loop.create_task(self._follow(), name="diachunk-shelf")

    async def close(self) -> None:
        self._growing.stop()
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._stock.close()
        await self.stated.close()
        for pool in (self._threads, self._hashing):
            pool.shutdown(wait=False, cancel_futures=True)

    # --- questions -----------------------------------------------------------------------------------------

    def manifests(self) -> list[Entry]:
        """Checkpoints here, those used last first."""
        return sorted(self._stock.table.entries.values(), key=lambda entry: -entry.used_at)

    def manifest_text(self, manifest_id: Digest) -> Path | None:
        """The file with its text."""
        entry = self._stock.table.entries.get(manifest_id)
        return entry.text_path if entry else None

    def refs(self, name: str, revision: str | None = None) -> list[Ref]:
        """What a name stands for here."""
        return [ref for ref in self._refs if ref.name == name and revision in (None, ref.revision)]

    def found_by(self, statement: Digest) -> list[Entry]:
        """Checkpoints that claim to be of stated files (P20), those used last first."""
        return [each for each in self.manifests() if each.found_by == statement]

    def feed(self, manifest_id: Digest) -> Feed | None:
        """Of a checkpoint, or of what is drawn here."""
        return self._stock.feeds.get(manifest_id) or self.stated.feed(manifest_id)

    def wake_listeners(self) -> None:
        """Ends every long poll: the node is closing."""
        for feed in self._stock.feeds.values():
            feed.told.ring()
        self.stated.wake_listeners()

    def have(self, manifest_id: Digest, epoch: str = "", version: int = 0) -> Have | None:
        """What is here of a checkpoint; None if it is not known here."""
        feed = self._stock.feeds.get(manifest_id)
        return feed.have(epoch, version) if feed else None

    def have_digests(self, digests: Sequence[Digest]) -> Bitmap:
        """Which of these chunks are here, in that order."""
        here = (number for number, digest in enumerate(digests) if self._stock.table.find(digest))
        return Bitmap(len(digests), here)

    def chunk(self, digest: Digest) -> Piece | None:
        """Where a chunk lies here."""
        found = self._stock.table.find(digest)
        return None if found is None else piece_of(*found)

    def blob_size(self, digest: Digest) -> int | None:
        """The size of a file that a checkpoint here has; None for any other."""
        files = self._stock.table.by_blob.get(digest)
        return files[0].size if files else None

    def blob(self, digest: Digest, start: int, end: int) -> list[Piece] | None:
        """Where these bytes of a file lie, in order: in that file, or chunk by chunk wherever those are. None if
        not all of them are here.
        """
        for file in self._stock.table.by_blob.get(digest, ()):
            pieces = self._stock.pieces(file, start, end)
            if pieces is not None:
                return pieces
        return None

    def suspect(self, piece: Piece) -> None:
        """The file was another when it was opened: looks at it now."""
        if not self.stated.suspect(piece.file):
            self._suspects.add(piece.file.key)
            self._look_now.ring()

    # --- partials that this process fills ------------------------------------------------------------------

    def lend(self, company: Company, shared: Shared) -> None:
        """A session's partials are offered as they grow, until `unlend`. From any thread."""
        if isinstance(shared, Statement):
            self.stated.lend(company, shared)
            return
        lent = []
        for facts, file in zip(company.work.blobs, company.files, strict=True):
            key = (facts.digest, facts.chunks.id)
            with suppress(OSError):  # it was closed already: the session is about to end
                identity = identity_of(os.fstat(file.fd))[:2]
                file.follow(partial(self._tell, key, identity))
                paths = (file.path, self.store.layout.blob(facts.digest))
                lent.append(Lent(key, paths, identity, file.present()))
        self._call(lambda: self._begin(company, tuple(lent)))

    def unlend(self, company: Company) -> None:
        """The session is over. What it completed stays. From any thread."""
        for file in company.files:
            file.follow(None)
        self._call(lambda: self._end(company))

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                self._loop.call_soon_threadsafe(what)

    def _begin(self, company: Company, lent: tuple[Lent, ...]) -> None:
        self._lent[company] = lent
        if any(each.key not in self._stock.table.files for each in lent):
            self._look_now.ring()
        self._stock.take_lent(lent)

    def _end(self, company: Company) -> None:
        self.stated.end(company)
        for each in self._lent.pop(company, ()):
            self._suspects.add(each.key)
            file = self._stock.table.files.get(each.key)
            if file is not None:
                file.lent = False
        self._look_now.ring()

    # --- what other threads found --------------------------------------------------------------------------

    def _tell(self, key: Key, identity: Identity, index: int) -> None:
        """A chunk is right. From the thread that wrote or hashed it."""
        self._inbox.put((key, identity, index))

    def _take(self, news: tuple[Key, Identity, int]) -> bool:
        key, identity, index = news
        file = self._stock.table.files.get(key)
        if file is None or file.identity[:2] != identity[:2]:
            return True
        if any(self._disk.hides(entry.id) for entry, _ in file.places):
            # Not a byte of it: it waits until the catalog was read again, and goes with its checkpoint.
            self._look_now.ring()
            return False
        self._stock.gain(file, index)
        return True

    # --- following the store -------------------------------------------------------------------------------

    async def _follow(self) -> None:
        number = 1
        while True:
            await self._look_now.wait(POLL_S)
            try:
                await self._look(number)
            except asyncio.CancelledError:
                raise
            except Exception:  # noqa: BLE001 - a look that fails is made again
                _LOG.exception("looking at the store failed")
            number += 1

    async def _look(self, number: int) -> None:
        if await self._in_thread(self._disk.catalog_changed):
            await self._read_catalog()
        suspects, self._suspects = self._suspects, set()
        shelves = await self._in_thread(self._disk.changed_shelves)
        every = shelves is None or not number % _FULL_LOOK_EVERY
        files = [
            file
            for key, file in self._stock.table.files.items()
            if every or key in suspects or (shelves and key[0][0] in shelves)
        ]
        await self._look_at(files)
        if self._verify_claimed:
            self._hash_unproven()

    async def _read_catalog(self) -> None:
        before = self._stock.table
        entries = await self._in_thread(lambda: self._disk.manifests(before.entries))
        if entries.keys() != before.entries.keys():
            table = await self._in_thread(lambda: Table(entries, before))
            self._inbox.drain()
            for new in self._stock.take_over(table):
                table.recount(new)
                await asyncio.sleep(0)
            for lent in self._lent.values():
                self._stock.take_lent(lent)
            await self._look_at([file for key, file in table.files.items() if key not in before.files])
            self._inbox.drain()
        self._refs = await self._in_thread(lambda: self._disk.refs(entries))
        self.changed.ring()

    async def _look_at(self, files: Sequence[FileHere]) -> None:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            for found in await self._in_thread(partial(self._disk.look_all, some)):
                self._stock.apply(found)
                await asyncio.sleep(0)

    def _hash_unproven(self) -> None:
        if self._busy_hashing:
            return
        work = [(self._stock.table.files[key], found) for key, found in self._stock.unproven.items()]
        work = [(file, found) for file, found in work if not file.lent]
        if work:
            self._busy_hashing = True
            future = asyncio.get_running_loop().run_in_executor(self._hashing, self._growing.look_all, work)
            future.add_done_callback(self._hashed)

    def _hashed(self, future: asyncio.Future[None]) -> None:
        self._busy_hashing = False
        if not future.cancelled() and (error := future.exception()) is not None:
            _LOG.error("hashing what others wrote failed: %s", error)

    async def _in_thread(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, what)
