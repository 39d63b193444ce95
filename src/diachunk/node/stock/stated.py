"""Pieces of drafts that this process fetches, or has fetched: offered by the key of their file (P19 of
docs/protocol.md), apart from all that is verified.

Nobody vouches for them, so they share nothing with the chunks of manifests: no digest leads from one to the other.
What became a blob goes on being offered from there for as long as this process lives; what turned out not to be what
was stated is withdrawn at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.manifest.statement import Statement
from diachunk.node.stock.disk import identity_of
from diachunk.node.stock.feed import Feed
from diachunk.node.stock.holdings import Entry, FileHere, Identity, Key, Table
from diachunk.node.stock.inbox import Inbox
from diachunk.node.stock.stock import Lent, Piece, Stock
from diachunk.store.drafts import Draft
from diachunk.store.stamps import read_stamp
from diachunk.transfer.company import Company


class StatedShelf:
    """Used on the loop's thread, but for `lend` and `keep`, which may be called from any."""

    def __init__(
        self, limits: Limits, hides: Callable[[Digest], bool], call: Callable[[Callable[[], None]], None]
    ) -> None:
        """Args:
        hides: whether the file of that key must not be shown to anybody who asks.
        call: runs something on the loop's thread.
        """
        self._stock = Stock(limits)
        self._hides = hides
        self._call = call
        self._newest = self._stock.table
        self._making = threading.Lock()
        self._lent: dict[Company, tuple[Lent, ...]] = {}
        self._inbox: Inbox[tuple[Key, Identity, int]] = Inbox(call, self._take)
        self._looking: set[asyncio.Task[None]] = set()

    # --- questions -----------------------------------------------------------------------------------------

    def feed(self, statement_id: Digest) -> Feed | None:
        return self._stock.feeds.get(statement_id)

    def size(self, key: Digest) -> int | None:
        """The size of a stated file of which something may be here; None for any other."""
        files = self._stock.table.by_blob.get(key)
        return files[0].size if files else None

    def pieces(self, key: Digest, start: int, end: int) -> list[Piece] | None:
        """Where these bytes of a stated file lie, in order; None if not all of them are here."""
        files = self._stock.table.by_blob.get(key)
        if not files or self._is_hidden(files[0]):
            return None
        return self._stock.pieces(files[0], start, end)

    def suspect(self, file: FileHere) -> bool:
        """It was another when it was opened: finds out what became of it. False if that file is none of these."""
        if self._stock.table.files.get(file.key) is not file:
            return False
        task = asyncio.get_running_loop().create_task(self._look(file), name="diachunk-stated")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
        return True

    def wake_listeners(self) -> None:
        for feed in self._stock.feeds.values():
            feed.told.ring()

    async def close(self) -> None:
        for task in self._looking:
            task.cancel()
        if self._looking:
            await asyncio.wait(self._looking)
        self._stock.close()

    # --- drafts that this process fills --------------------------------------------------------------------

    def lend(self, company: Company, statement: Statement) -> None:
        """A session's drafts are offered as they grow, until its `end`. From any thread."""
        lent = []
        for facts, file in zip(company.work.blobs, company.files, strict=True):
            assert isinstance(file, Draft)
            key = (facts.digest, facts.chunks.id)
            with suppress(OSError):  # it was closed already: the session is about to end
                identity = identity_of(os.fstat(file.fd))[:2]
                file.follow(partial(self._tell, key, identity))
                file.on_doubt(partial(self._call, partial(self._withdraw, key, identity)))
                lent.append(Lent(key, file.homes, identity, file.present()))
        self._add(statement, lambda: self._begin(company, tuple(lent)))

    def keep(self, statement: Statement, here: Mapping[Digest, Path]) -> None:
        """Files of it that are here already, whole and proven to be what is stated, are offered from where they lie.
        From any thread.
        """
        found: list[tuple[Key, Path, Identity]] = []
        for _, file in statement.walk():
            if (path := here.get(file.blake3)) is not None:
                with suppress(OSError):
                    found.append(((file.blake3, file.chunks.id), path, identity_of(os.stat(path))))
        self._add(statement, lambda: self._begin_kept(found))

    def _add(self, statement: Statement, then: Callable[[], None]) -> None:
        """Makes room for a statement, aside from the loop, and goes on there."""
        with self._making:
            table = None
            if statement.id not in self._newest.entries:
                entry = Entry(statement, 0.0, Path())
                table = Table({**self._newest.entries, statement.id: entry}, self._newest)
                self._newest = table
            self._call(lambda: self._take_over(table, then))

    def _take_over(self, table: Table | None, then: Callable[[], None]) -> None:
        for new in self._stock.take_over(table) if table is not None else ():
            self._stock.table.recount(new)
        then()

    def _begin_kept(self, found: Iterable[tuple[Key, Path, Identity]]) -> None:
        for key, path, identity in found:
            file = self._stock.table.files.get(key)
            if file is not None and not file.lent and not file.whole and not self._hides(key[0]):
                file.paths, file.identity = [path], identity
                self._stock.gain_all(file)

    def _begin(self, company: Company, lent: Sequence[Lent]) -> None:
        self._lent[company] = tuple(each for each in lent if not self._hides(each.key[0]))
        self._stock.take_lent(self._lent[company])

    def end(self, company: Company) -> None:
        """The session is over. What it got stays, until somebody doubts it."""
        for each in self._lent.pop(company, ()):
            file = self._stock.table.files.get(each.key)
            if file is not None:
                file.lent = False

    def _tell(self, key: Key, identity: Identity, index: int) -> None:
        """A piece is in place. From the thread that wrote it."""
        self._inbox.put((key, identity, index))

    def _take(self, news: tuple[Key, Identity, int]) -> None:
        key, identity, index = news
        file = self._stock.table.files.get(key)
        if file is not None and file.identity[:2] == identity[:2] and not self._is_hidden(file):
            self._stock.gain(file, index)

    # --- what is not offered any more ----------------------------------------------------------------------

    def _is_hidden(self, file: FileHere) -> bool:
        """Private by now: a fetch marks it right before the first byte that took credentials."""
        if not self._hides(file.digest):
            return False
        self._give_up(file)
        return True

    def _withdraw(self, key: Key, identity: Identity) -> None:
        """The whole is not what was stated."""
        file = self._stock.table.files.get(key)
        if file is not None and file.identity[:2] == identity:
            self._give_up(file)

    def _give_up(self, file: FileHere) -> None:
        self._stock.lose(file)
        file.identity, file.lent = (), False

    async def _look(self, file: FileHere) -> None:
        before = file.identity
        found = await asyncio.to_thread(_home_of, file)
        if file.identity != before:
            return
        if found is None:
            self._give_up(file)
        else:
            file.identity = found


def _home_of(file: FileHere) -> Identity | None:
    """The draft itself, under whatever name; or the blob that was here already when it was done."""
    for number, path in enumerate(file.paths):
        with suppress(OSError):
            status = os.stat(path, follow_symlinks=False)
            identity = identity_of(status)
            if file.identity and identity[: len(file.identity)] == file.identity:
                return file.identity
            stamp = read_stamp(path.with_name(f"{path.name}.stamp")) if number else None
            if stamp is not None and stamp.matches(status):
                return identity
    return None
