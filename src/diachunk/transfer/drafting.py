"""Fetches files of which only size and whole-file digest are stated: a recipe's. The same session, other sinks.

Each is fetched in parallel ranges into a draft (store/drafts.py) and hashed meanwhile (following.py). A whole that is
not what was stated cannot say which piece was wrong: first no peer is asked for that file any more (givers.py), then
each source is asked for it alone (trials.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diachunk.chunking.hashes import Hashes
from diachunk.digest import Digest
from diachunk.errors import StoreError
from diachunk.limits import Limits
from diachunk.manifest.stated import StatedFile
from diachunk.schedule.health import Tier
from diachunk.schedule.work import WorkList
from diachunk.sources.base import Source
from diachunk.store.drafts import Draft, matches
from diachunk.store.partial import Partial, Vanished
from diachunk.store.store import Store
from diachunk.transfer.assemble import Report, files_at_once
from diachunk.transfer.company import Swarm
from diachunk.transfer.drafts_open import Opened, check_space, claimed_bytes, discard, left_of, work_of
from diachunk.transfer.following import Follower, publishing, turns
from diachunk.transfer.givers import Givers
from diachunk.transfer.incomplete import incomplete
from diachunk.transfer.neighbours import gone_again, wait_for_neighbour
from diachunk.transfer.offers import local_offers, network_offer, prefix_offers
from diachunk.transfer.progress import (
    FileDone,
    How,
    Listener,
    Notice,
    Progress,
    Retractable,
    silent,
)
from diachunk.transfer.session import Offer, Outcome, Session
from diachunk.transfer.trials import NotAsStated, Told, Trials

_ROUNDS_MAX = 64
Known = Callable[[StatedFile], Hashes | None]


class Drafting:
    """One run of `fetch`. Rounds, because another process may hold a draft, or a whole may be wrong."""

    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        limits: Limits,
        *,
        known: Known,
        prefixes: Sequence[tuple[Digest, Path]] = (),
        swarm: Swarm | None = None,
        max_down_bps: int | None = None,
        listener: Listener = silent,
    ) -> None:
        """`known` looks for a file whose digests this machine has computed already. `prefixes`: files that may
        hold the beginning of the file with that key: an interrupted download of another program. `swarm`: others
        that draw the same.
        """
        self.report = Report()
        self._store = store
        self._sources = list(sources)
        self._limits = limits
        self._known = known
        self._prefixes = list(prefixes)
        self._swarm = swarm
        self._max_down_bps = max_down_bps
        self._listener = Told(listener)
        self._givers = Givers(listener)
        self._asked: Sequence[Source] = ()
        self._trials = Trials(self._sources, listener)
        self._counted: set[Digest] = set()
        self._doubts = 0
        self._wrong = self._listener.wrong
        self._reused: dict[Digest, int] = {}

    def fetch(self, files: Sequence[StatedFile]) -> dict[Digest, Hashes]:
        """Returns the digests of every file, by its key, when each is a complete and durable blob.

        Raises:
            TransferIncomplete: no usable source is left; names every source and what it did.
            IntegrityError: no source gives what was stated.
            StoreError: the disk refused.
            Interrupted: Ctrl-C.
        """
        started_at = time.monotonic()
        unique = list({file.key: file for file in files}.values())
        check_space(self._store, [file for file in unique if self._known(file) is None])
        found: dict[Digest, Hashes] = {}
        at_once = files_at_once()
        try:
            for start in range(0, len(unique), at_once):
                self._fetch_batch(unique[start : start + at_once], found)
        finally:
            self.report.elapsed_s += time.monotonic() - started_at
        return found

    def _fetch_batch(self, files: Sequence[StatedFile], found: dict[Digest, Hashes]) -> None:
        rounds = 0
        while rounds < _ROUNDS_MAX:
            missing = self._look_around(files, found)
            if not missing:
                return
            doubts = self._doubts
            self._trials.prepare(missing)
            waiting = self._rounds(missing)
            rounds += self._doubts == doubts  # those have an end of their own
            if waiting:
                paths = [self._store.drafts.path(file) for file in waiting]
                wait_for_neighbour(waiting[0].label, paths, self._limits, self._listener)
        raise gone_again()

    def _look_around(self, files: Sequence[StatedFile], found: dict[Digest, Hashes]) -> list[StatedFile]:
        """Takes note of what is complete here, whoever completed it; returns the others."""
        missing = []
        for file in files:
            if file.key in found:
                continue
            hashes = self._known(file)
            if hashes is None:
                missing.append(file)
                continue
            found[file.key] = hashes
            if file.key not in self._counted:
                self._counted.add(file.key)
                self.report.present_bytes += file.size
                self._listener(Progress(file.size, file.component, How.REUSED))
                self._listener(FileDone(file.component, file.path, file.size))
        return missing

    # --- one round -----------------------------------------------------------------------------------------

    def _rounds(self, missing: Sequence[StatedFile]) -> list[StatedFile]:
        """First what peers may give, then what they may not; returns the files that others are busy with."""
        trusted = {
            file.key for file in missing if file.key not in self._trials and self._givers.may_ask(file)
        }
        together = [file for file in missing if file.key in trusted]
        alone = [file for file in missing if file.key not in trusted]
        return [
            file
            for files, joins in ((together, True), (alone, False))
            if files
            for file in self._round(files, joins=joins)
        ]

    def _round(self, missing: Sequence[StatedFile], *, joins: bool) -> list[StatedFile]:
        """Fills every draft that nobody else holds; returns the files of the others."""
        opened: list[tuple[StatedFile, Draft]] = []
        followers: dict[Digest, Follower[Hashes | None]] = {}
        waiting: list[StatedFile] = []

        def verdict_on(file: StatedFile) -> Callable[[Partial], Hashes | None]:
            def verdict(partial: Partial) -> Hashes | None:
                assert isinstance(partial, Draft)
                hashes = followers[file.key].result()
                if hashes is None:
                    raise StoreError(f"{file.label}: its file here was cut off by another process")
                if matches(file, hashes):
                    self._givers.settle(file, partial)
                    return hashes
                partial.doubt()
                wrong = NotAsStated(file, hashes)
                in_company = self._givers.any_of(self._asked, file)
                if not in_company and self._trials.is_last(file, had_local=self._had_local(file)):
                    raise wrong
                self._wrong[file.key] = wrong  # the others go on meanwhile
                return None

            return verdict

        try:
            for file in missing:
                draft = self._store.drafts.open(file, verdict_on(file))
                if self._store.drafts.recall(file) is not None:
                    draft.discard()  # a neighbour completed it since we looked: this is a fresh, empty one
                elif draft.locked:
                    opened.append((file, draft))
                else:
                    draft.close()
                    waiting.append(file)
            if opened:
                self._fill(opened, followers, joins=joins)
        finally:
            for follower in followers.values():
                follower.stop()
            for _, draft in opened:
                draft.close()
        return waiting

    def _fill(
        self,
        opened: Opened,
        followers: dict[Digest, Follower[Hashes | None]],
        *,
        joins: bool,
    ) -> None:
        work = work_of(opened)
        told = Retractable(self._listener)
        self._wrong.clear()
        self._reused = claimed_bytes(opened)
        session = Session(
            work,
            [draft for _, draft in opened],
            self._offers(work, opened),
            self._limits,
            max_down_bps=self._max_down_bps,
            listener=told,
            swarm=self._swarm,
            joins=joins,
        )
        self._asked = session.desk.sources
        at_once = turns()
        for number, (file, draft) in enumerate(opened):
            follower = publishing(draft, at_once, file.path, _hastener(session, number), git=bool(file.git))
            followers[file.key] = follower
            follower.start()
        try:
            outcome = session.run()
        except Vanished as gone:
            told.retract()
            self._listener(Notice(f"{gone.message}; starting that file over"))
            return
        except NotAsStated as wrong:
            discard(opened, {wrong.file.key})
            self._trials.doubt(wrong, had_local=False)
            raise
        self._book(outcome)
        left = left_of(outcome, work)
        self._counted.update(
            file.key for file, _ in opened if file.key not in left.keys() | self._wrong.keys()
        )
        self._judge(opened)
        if outcome.why and not self._pass_over(outcome, opened, left):
            raise incomplete(outcome, work, upstream=True)

    def _judge(self, opened: Opened) -> None:
        """Throws away what came wrong, and sees who is asked next.

        Raises:
            IntegrityError: nobody is left.
        """
        discard(opened, self._wrong)
        drafts = {file.key: draft for file, draft in opened}
        for wrong in self._wrong.values():
            file = wrong.file
            self._doubts += 1
            self.report.wasted_bytes += file.size
            self._listener.take_back(file, file.size, self._reused[file.key])
            if not self._givers.doubt(wrong, drafts[file.key], self._asked):
                self._trials.doubt(wrong, had_local=self._had_local(file))

    def _pass_over(self, outcome: Outcome, opened: Opened, left: Mapping[Digest, int]) -> bool:
        """Files did not arrive: no end yet where each was asked of one source alone, and others are left.

        Raises:
            IntegrityError: nobody is left for one of which others gave something wrong.
        """
        network = [each for each in outcome.sources if each.tier is Tier.NETWORK]
        files = [file for file, _ in opened if file.key in left]
        if not self._trials.pass_over(files, network):
            return False
        discard(opened, left)
        for file in files:
            self._doubts += 1
            self._listener.take_back(file, file.size - left[file.key], self._reused[file.key])
        return True

    def _had_local(self, file: StatedFile) -> bool:
        """Whether some of it lay here before this round: then nobody knows who gave what was wrong."""
        from_prefix = file.key not in self._trials and any(key == file.key for key, _ in self._prefixes)
        return from_prefix or self._reused.get(file.key, 0) > 0

    def _offers(self, work: WorkList, opened: Opened) -> list[Offer]:
        offers = local_offers(work, [draft for _, draft in opened], (), ())
        offers += prefix_offers(work, [each for each in self._prefixes if each[0] not in self._trials])
        for number, source in enumerate(self._sources):
            offers.append(network_offer(source, work, self._trials.barred(number)))
        return offers

    def _book(self, outcome: Outcome) -> None:
        self.report.fetched_bytes += outcome.fetched_bytes
        self.report.reused_bytes += outcome.reused_bytes
        self.report.wasted_bytes += outcome.wasted_bytes
        self.report.sources = tuple(each for each in outcome.sources if each.tier)


def _hastener(session: Session, blob: int) -> Callable[[int, int], None]:
    return lambda start, end: session.hasten(blob, start, end)
